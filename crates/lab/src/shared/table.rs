//! Tables in the text reports of check, matrix and demo.

use std::ops::Range;

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};

/// A table without lines between its cells. Each column is followed by `gap` spaces; the columns in `right` are aligned
/// to the right.
pub(crate) fn table<R>(
    header: impl IntoIterator<Item = impl Into<String>>,
    rows: impl IntoIterator<Item = R>,
    gap: u16,
    right: Range<usize>,
) -> Table
where
    R: IntoIterator<Item = String>,
{
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header(header.into_iter().map(Into::<String>::into));
    table.add_rows(rows);
    for (number, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, gap));
        if right.contains(&number) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}
