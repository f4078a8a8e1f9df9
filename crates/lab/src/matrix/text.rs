use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};

use super::cells;
use super::report::Matrix;
use crate::wrapped::{columns, lines, wrapped};

/// The matrix for people, at most 100 columns wide.
pub(super) fn text(matrix: &Matrix) -> String {
    let mut text = String::new();
    if !matrix.servers.is_empty() {
        text += &servers(matrix);
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
    // A column of marks, without blanks between; their numbers stand above them.
    let count = cells::scenarios(matrix).len();
    let tens: String = (1..=count)
        .map(|number| if number < 10 { ' ' } else { '1' })
        .collect();
    let ones: String = (1..=count)
        .map(|number| (number % 10).to_string())
        .collect();
    let mut table = Table::new();
    let names =
        ["server", "version", "verdict", "lost", "reads on"].map(|name| format!("\n{name}"));
    let marks = format!("{tens}\n{ones}");
    table
        .load_style(NOTHING)
        .set_header(names.into_iter().chain([marks]));
    for row in &matrix.servers {
        let marks = row.check.iter().flat_map(|report| &report.scenarios);
        let marks = marks
            .map(|scenario| cells::mark(scenario.verdict))
            .collect();
        table.add_row(cells::server(row).into_iter().chain([marks]));
    }
    finished(table, &[3])
}

fn proxies(matrix: &Matrix) -> String {
    let mut table = Table::new();
    let names = ["proxy", "version"].map(str::to_owned).into_iter();
    table
        .load_style(NOTHING)
        .set_header(names.chain(cells::sizes(matrix)));
    for row in &matrix.proxies {
        table.add_row(cells::proxy(row));
    }
    finished(table, &[2, 3, 4, 5])
}

fn finished(mut table: Table, right: &[usize]) -> String {
    for (number, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 1));
        if right.contains(&number) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    lines(table, columns())
}
