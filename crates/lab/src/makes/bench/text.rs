//! The bench for people, as text.

use super::cells;
use super::report::BenchReport;
use crate::shared::table::table;
use crate::shared::wrapped::{columns, lines, wrapped};

/// The report for people, at most 100 columns wide.
pub(super) fn text(report: &BenchReport) -> String {
    let mut text = String::new();
    for case in &report.cases {
        text += &wrapped(&format!("{}: {}", cells::title(case), case.load), "", "  ");
        let table = table(cells::COLUMNS, case.rows.iter().map(cells::row), 2, 1..7);
        text += &lines(table, columns());
        text.push('\n');
    }
    for remark in cells::remarks(report) {
        text += &wrapped(&remark, "", "  ");
    }
    text + &wrapped(&cells::origin(report), "", "")
}
