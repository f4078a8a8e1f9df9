//! Text and tables in as many columns as there is room for.

use std::borrow::Cow;
use std::io;
use std::os::fd::AsFd;

use comfy_table::{ContentArrangement, Table};
use textwrap::{Options, WordSeparator, WordSplitter};

/// The longest line, unless a single word is longer.
pub(crate) const COLUMNS: usize = 100;

/// With fewer columns a table cannot be read.
const MIN_COLUMNS: usize = 40;

/// Longest line of what is printed on standard output: a terminal may be narrower than [`COLUMNS`].
pub(crate) fn columns() -> usize {
    columns_of(io::stdout())
}

fn columns_of(output: impl AsFd) -> usize {
    let size = rustix::termios::tcgetwinsize(output);
    // Without a terminal there is no size, and some terminals say zero.
    let columns = size.map_or(0, |size| usize::from(size.ws_col));
    match columns {
        // Unit tests compare texts, whichever terminal they run on.
        _ if cfg!(test) => COLUMNS,
        0 => COLUMNS,
        columns => columns.clamp(MIN_COLUMNS, COLUMNS),
    }
}

/// Breaks a text at blanks; the first line begins with `begin`, the others with `indent`.
pub(crate) fn wrapped(text: &str, begin: &str, indent: &str) -> String {
    wrapped_to(columns(), text, begin, indent)
}

/// As [`wrapped`], for standard error, which may be a terminal where standard output is none.
pub(crate) fn wrapped_on_stderr(text: &str, begin: &str, indent: &str) -> String {
    wrapped_to(columns_of_stderr(), text, begin, indent)
}

/// As [`columns`], for standard error.
pub(crate) fn columns_of_stderr() -> usize {
    columns_of(io::stderr())
}

/// Breaks a text at its blanks and its line ends into pieces of at most `columns`; a longer word is broken, too.
pub(crate) fn pieces(text: &str, columns: usize) -> Vec<Cow<'_, str>> {
    textwrap::wrap(text, options(columns))
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
    let options = options(columns).break_words(false);
    let options = options.initial_indent(begin).subsequent_indent(indent);
    textwrap::fill(text, options) + "\n"
}

/// Words end at blanks only: an address or a cause with a hyphen in it stays whole.
fn options<'a>(columns: usize) -> Options<'a> {
    Options::new(columns)
        .word_separator(WordSeparator::AsciiSpace)
        .word_splitter(WordSplitter::NoHyphenation)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_is_longer_than_there_is_room() {
        let text = "a word, ".repeat(50) + "b";
        for columns in [MIN_COLUMNS, 80, COLUMNS] {
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

    #[test]
    fn pieces_end_at_blanks_and_in_words_that_are_too_long() {
        assert_eq!(pieces("one two three", 7), ["one two", "three"]);
        assert_eq!(pieces("abcdefgh ij\nk", 3), ["abc", "def", "gh", "ij", "k"]);
        assert_eq!(pieces("", 3), [""]);
    }
}
