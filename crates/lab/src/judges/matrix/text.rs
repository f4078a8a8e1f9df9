//! The matrix for people, as text.

use super::cells;
use super::report::Matrix;
use crate::judges::check::VERDICTS;
use crate::shared::color::tone_words;
use crate::shared::table::table;
use crate::shared::wrapped::{columns, lines, wrapped};

/// The matrix for people, at most 100 columns wide.
pub(super) fn text(matrix: &Matrix) -> String {
    let mut text = String::new();
    if !matrix.servers.is_empty() {
        text += &tone_words(&servers(matrix), &VERDICTS);
        text += &wrapped(&cells::legend(matrix), "", "");
        text.push('\n');
    }
    if !matrix.proxies.is_empty() {
        text += &proxies(matrix);
        text += &wrapped(cells::PROXIES, "", "");
        text.push('\n');
    }
    for (name, problem) in cells::problems(matrix) {
        text += &wrapped(&format!("{name}: {problem}"), "", "  ");
    }
    text + &format!("{}, {:.0} s\n", matrix.date, matrix.seconds)
}

fn servers(matrix: &Matrix) -> String {
    // One column holds all marks without spaces between; the scenarios' numbers stand above them.
    let count = cells::scenarios(matrix).len();
    let tens: String = (1..=count)
        .map(|number| if number < 10 { ' ' } else { '1' })
        .collect();
    let ones: String = (1..=count)
        .map(|number| (number % 10).to_string())
        .collect();
    let names = cells::SERVER_COLUMNS.map(|name| format!("\n{name}"));
    let header = names.into_iter().chain([format!("{tens}\n{ones}")]);
    let rows = matrix.servers.iter().map(|row| {
        let marks = row.check.iter().flat_map(|report| &report.scenarios);
        let marks = marks.map(|scenario| cells::mark(scenario.verdict));
        cells::server(row).into_iter().chain([marks.collect()])
    });
    lines(table(header, rows, 1, 3..4), columns())
}

fn proxies(matrix: &Matrix) -> String {
    let rows = matrix.proxies.iter().map(cells::proxy);
    let table = table(cells::proxy_columns(matrix), rows, 1, 2..6);
    lines(table, columns())
}
