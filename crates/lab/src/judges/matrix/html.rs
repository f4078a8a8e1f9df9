//! The matrix as an HTML page that needs no other file.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::cells;
use super::report::Matrix;
use crate::judges::check::CheckVerdict;

const STYLE: &str = "body { font: 15px/1.4 system-ui, sans-serif; margin: 2em; color: #222; background: #fff }\n\
    table { border-collapse: collapse; margin-bottom: 1em }\n\
    th, td { padding: .25em .6em; border-bottom: 1px solid #ccc; text-align: left; white-space: nowrap }\n\
    th.up { writing-mode: vertical-rl; transform: rotate(180deg); font-weight: normal }\n\
    td.mark { text-align: center }\n\
    .pass { background: #d9f2d9 } .harmless { background: #fff3c4 }\n\
    .loses { background: #f8d0d0; font-weight: bold } .unknown { color: #777 }\n";

/// The matrix as a page.
pub(super) fn page(matrix: &Matrix) -> String {
    let problems = cells::problems(matrix);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                title { "rstlab matrix, " (matrix.date) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { "rstlab matrix" }
                p { (matrix.date) ", " (format!("{:.0} s", matrix.seconds)) }
                @if !matrix.servers.is_empty() { (servers(matrix)) }
                @if !matrix.proxies.is_empty() { (proxies(matrix)) }
                @if !problems.is_empty() {
                    ul { @for (name, problem) in problems { li { (name) ": " (problem) } } }
                }
            }
        }
    };
    page.into_string() + "\n"
}

fn servers(matrix: &Matrix) -> Markup {
    html! {
        table {
            tr {
                @for name in cells::SERVER_COLUMNS { th { (name) } }
                @for name in cells::scenarios(matrix) { th class="up" { (name) } }
            }
            @for row in &matrix.servers {
                tr {
                    @for cell in cells::server(row) { td { (cell) } }
                    @for scenario in row.check.iter().flat_map(|report| &report.scenarios) {
                        td class={ "mark " (class(&scenario.verdict)) }
                            title={ (scenario.name) ": " (scenario.sentence) } {
                            (cells::mark(scenario.verdict))
                        }
                    }
                }
            }
        }
        p { (cells::legend(matrix)) }
    }
}

fn class(verdict: &CheckVerdict) -> &str {
    match verdict {
        CheckVerdict::CannotTell => "unknown",
        known => known.as_ref(),
    }
}

fn proxies(matrix: &Matrix) -> Markup {
    html! {
        table {
            tr { @for name in cells::proxy_columns(matrix) { th { (name) } } }
            @for row in &matrix.proxies {
                tr { @for cell in cells::proxy(row) { td { (cell) } } }
            }
        }
        p { (cells::PROXIES) }
    }
}
