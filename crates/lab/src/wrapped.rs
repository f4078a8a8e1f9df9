use std::io;

use comfy_table::{ContentArrangement, Table};

/// Longest line, unless a single word is longer.
pub(crate) const COLUMNS: usize = 100;

/// Below this a table is no table any more.
const LEAST_COLUMNS: usize = 40;

/// Longest line where it is printed: a terminal may be narrower.
pub(crate) fn columns() -> usize {
    let size = rustix::termios::tcgetwinsize(io::stdout());
    // No terminal, or one that does not say how wide it is.
    let columns = size.map_or(0, |size| usize::from(size.ws_col));
    match columns {
        // Unit tests compare what they do not print, on whatever terminal.
        _ if cfg!(test) => COLUMNS,
        0 => COLUMNS,
        columns => columns.clamp(LEAST_COLUMNS, COLUMNS),
    }
}

/// Breaks a text at blanks; the first line begins with `begin`, the others with `indent`.
pub(crate) fn wrapped(text: &str, begin: &str, indent: &str) -> String {
    wrapped_to(columns(), text, begin, indent)
}

/// A table's lines. They are at most 100 columns wide as they are; where there is less room, cells are broken.
pub(crate) fn lines(mut table: Table, columns: usize) -> String {
    if columns < COLUMNS {
        let width = u16::try_from(columns).unwrap_or(u16::MAX);
        table
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_width(width);
    }
    table.trim_fmt() + "\n"
}

fn wrapped_to(columns: usize, text: &str, begin: &str, indent: &str) -> String {
    let mut lines = String::new();
    let mut line = begin.to_owned();
    let mut is_empty = true;
    for word in text.split(' ') {
        if !is_empty && line.chars().count() + 1 + word.chars().count() > columns {
            lines += &line;
            lines.push('\n');
            line = indent.to_owned();
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line += word;
        is_empty = false;
    }
    lines += &line;
    lines.push('\n');
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_is_longer_than_there_is_room() {
        let text = "a word, ".repeat(50) + "b";
        for columns in [LEAST_COLUMNS, 80, COLUMNS] {
            let wrapped = wrapped_to(columns, &text, "begin: ", "  ");
            assert!(wrapped.starts_with("begin: a word,"));
            let longest = wrapped.lines().map(|line| line.chars().count()).max();
            assert!(longest.is_some_and(|longest| (columns - 6..=columns).contains(&longest)));

            let mut table = Table::new();
            table.add_row([text.as_str(), "c"]);
            let lines = lines(table, columns.min(80));
            assert!(
                lines.lines().all(|line| line.chars().count() <= columns),
                "{lines}"
            );
        }
    }
}
