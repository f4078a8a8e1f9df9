//! The matrix as Markdown.

use super::cells;
use super::report::Matrix;
use crate::shared::markdown::{escaped, row};

/// The matrix for a page or a pull request.
pub(super) fn markdown(matrix: &Matrix) -> String {
    let mut text = String::new();
    if !matrix.servers.is_empty() {
        let scenarios = cells::scenarios(matrix);
        let numbers = (1..=scenarios.len()).map(|number| number.to_string());
        let names = cells::SERVER_COLUMNS.map(str::to_owned);
        text += &escaped_row(names.into_iter().chain(numbers));
        text += &escaped_row((0..5 + scenarios.len()).map(|column| match column {
            0..3 | 4 => ":---".to_owned(),
            3 => "---:".to_owned(),
            _ => ":-:".to_owned(),
        }));
        for server in &matrix.servers {
            let marks = server.check.iter().flat_map(|report| &report.scenarios);
            let marks = marks.map(|scenario| cells::mark(scenario.verdict).to_owned());
            text += &escaped_row(cells::server(server).into_iter().chain(marks));
        }
        text += &format!("\n{}\n\n", cells::legend(matrix));
    }
    if !matrix.proxies.is_empty() {
        let columns = cells::proxy_columns(matrix);
        let lines = (0..columns.len()).map(|column| if column < 2 { ":---" } else { "---:" });
        let lines: Vec<_> = lines.collect();
        text += &escaped_row(columns.into_iter());
        text += &row(&lines);
        for proxy in &matrix.proxies {
            text += &escaped_row(cells::proxy(proxy).into_iter());
        }
        text += &format!("\n{}\n\n", cells::PROXIES);
    }
    for (name, problem) in cells::problems(matrix) {
        text += &format!("- {}: {}\n", escaped(&name), escaped(&problem));
    }
    text + &format!("\n{}, {:.0} s.\n", matrix.date, matrix.seconds)
}

fn escaped_row(cells: impl Iterator<Item = String>) -> String {
    row(&cells.map(|cell| escaped(&cell)).collect::<Vec<_>>())
}
