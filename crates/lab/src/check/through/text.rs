use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};

use super::report::{Report, SizeReport};
use crate::wrapped::{columns, lines, wrapped};
use rstlab_cli::grouped;

/// Heads of the table's columns.
const COLUMN_NAMES: [&str; 4] = ["body", "clients", "got the answer", "the others got"];

/// The report for people, at most 100 columns wide.
pub(super) fn text(url: &str, report: &Report) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(COLUMN_NAMES);
    for size in &report.sizes {
        table.add_row(cells(size));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    for column in table.column_iter_mut().take(3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut text = wrapped(&summary(url, report), "", "") + "\n" + &lines(table, columns());
    for line in untried(report) {
        text += &wrapped(&line, "", "  ");
    }
    text
}

/// A line for each size of which not all clients were tried.
fn untried(report: &Report) -> Vec<String> {
    let line = |size: &SizeReport| {
        let why = size.untried.iter();
        let why: Vec<_> = why
            .map(|(why, count)| {
                format!(
                    "{} clients were not tried: {}",
                    grouped(*count),
                    why.as_str()
                )
            })
            .collect();
        (!why.is_empty()).then(|| format!("{} B: {}.", grouped(size.body_bytes), why.join("; ")))
    };
    report.sizes.iter().filter_map(line).collect()
}

/// The report for a pull request.
pub(super) fn markdown(url: &str, report: &Report) -> String {
    let mut text = format!("### rstlab check --through\n\n{}\n\n", summary(url, report));
    text += &format!(
        "| {} |\n| ---: | ---: | ---: | :--- |\n",
        COLUMN_NAMES.join(" | ")
    );
    for size in &report.sizes {
        text += &format!("| {} |\n", cells(size).join(" | "));
    }
    for line in untried(report) {
        text += &format!("\n{line}\n");
    }
    text
}

fn summary(url: &str, report: &Report) -> String {
    let verdict = match (report.all_answered(), report.untried()) {
        (true, 0) => "Every client got the answer.",
        (true, _) => "Every client that was tried got the answer.",
        (false, _) => "Some clients did not get the answer.",
    };
    format!(
        "The upstream at {} answers 401 as soon as it has a request's head, and closes. {verdict} {url}; {:.1} s.",
        report.upstream, report.seconds
    )
}

fn cells(size: &SizeReport) -> [String; 4] {
    let others = size.others.iter();
    let others: Vec<_> = others
        .map(|(what, count)| format!("{what} ({count})"))
        .collect();
    [
        format!("{} B", grouped(size.body_bytes)),
        size.clients.to_string(),
        size.answered.to_string(),
        others.join("; "),
    ]
}
