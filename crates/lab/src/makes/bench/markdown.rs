//! The bench as Markdown.

use super::cells;
use super::report::{BenchReport, BenchedCase};
use crate::shared::markdown::{escaped, row};

/// The report for a page: CPU time of every proxy in every case, then all figures.
pub(super) fn markdown(report: &BenchReport) -> String {
    let names = report.proxies.iter().map(|proxy| proxy.name.as_str());
    let mut text = escaped_row(["CPU time of a request"].into_iter().chain(names));
    text += &line(report.proxies.len() + 1, 1);
    for case in &report.cases {
        text += &escaped_row([cells::title(case)].into_iter().chain(costs(case)));
    }
    text += "\nIn brackets: the multiple of the best peer's.\n\n";
    let columns = ["case"].into_iter().chain(cells::COLUMNS);
    text += &escaped_row(columns);
    text += &line(1 + cells::COLUMNS.len(), 2);
    for case in &report.cases {
        for one in &case.rows {
            text += &escaped_row([cells::title(case)].into_iter().chain(cells::row(one)));
        }
    }
    text.push('\n');
    let mut cases: Vec<_> = report.cases.iter().collect();
    cases.dedup_by_key(|case| &case.name);
    let cases = cases
        .iter()
        .map(|case| format!("{}: {}", case.name, case.load));
    for remark in cases.chain(cells::remarks(report)) {
        text += &format!("- {}\n", escaped(&remark));
    }
    text + &format!("\n{}.\n", cells::origin(report))
}

/// The CPU time of each proxy in a case, with the ratio to the best peer.
fn costs(case: &BenchedCase) -> impl Iterator<Item = String> {
    case.rows.iter().map(|one| match &one.figures {
        Some(figures) => format!(
            "{} ({})",
            cells::time(figures.cpu_us_per_request.median),
            cells::ratio(figures)
        ),
        None => "failed".to_owned(),
    })
}

/// The line below a table's head: the first columns are aligned to the left.
fn line(columns: usize, left: usize) -> String {
    let cells = (0..columns).map(|column| if column < left { ":---" } else { "---:" });
    row(&cells.collect::<Vec<_>>())
}

fn escaped_row(cells: impl Iterator<Item = impl AsRef<str>>) -> String {
    row(&cells.map(|cell| escaped(cell.as_ref())).collect::<Vec<_>>())
}
