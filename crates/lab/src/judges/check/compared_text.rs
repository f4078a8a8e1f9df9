//! What changed since the baseline, as text.

use super::comparison::{Comparison, Finding};
use crate::shared::color::{Tone, tone_words};
use crate::shared::table::table;
use crate::shared::wrapped::{columns, lines, wrapped};

/// Heads of the columns.
pub(super) const COMPARED_NAMES: [&str; 6] = [
    "change",
    "scenario",
    "conn.",
    "client",
    "failed before",
    "now",
];

/// How many columns are aligned to the left.
pub(super) const COMPARED_LEFT: usize = 4;

/// Tones of the changes.
const CHANGES: [(&str, Tone); 6] = [
    ("new", Tone::Bad),
    ("worse", Tone::Bad),
    ("still there", Tone::Unsure),
    ("not told", Tone::Unsure),
    ("perhaps fixed", Tone::Unsure),
    ("fixed", Tone::Good),
];

/// Tones of the sentence.
const HEADLINES: [(&str, Tone); 2] = [
    ("Nothing got worse", Tone::Good),
    ("Something got worse", Tone::Bad),
];

/// The sentence, the notes, and a table of the findings.
pub(super) fn text(comparison: &Comparison) -> String {
    let mut text = tone_words(&wrapped(&comparison.sentence(), "", ""), &HEADLINES);
    for note in &comparison.notes {
        text += &wrapped(note, "", "");
    }
    if !comparison.findings.is_empty() {
        let rows = comparison.findings.iter().map(Finding::cells);
        let table = table(COMPARED_NAMES, rows, 2, COMPARED_LEFT..COMPARED_NAMES.len());
        text += &tone_words(&lines(table, columns()), &CHANGES);
    }
    text
}
