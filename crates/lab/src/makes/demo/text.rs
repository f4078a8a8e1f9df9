//! The demonstration as text: a table and a few sentences.

use rstlab_cli::grouped;

use super::case::{CASES, DemoRow, Expected};
use crate::shared::table;
use crate::shared::wrapped::wrapped;

/// The rows as a table of at most 80 columns.
pub(super) fn table(rows: &[DemoRow]) -> String {
    let header = [
        "mode",
        "writes",
        "re-\nquests",
        "resets",
        "harm-\nless",
        "trun-\ncated",
        "no re-\nsponse",
        "bytes\nlost",
        "on\nclose",
        "on\ndata",
        "as\ntold",
    ];
    let rows = rows.iter().map(|row| {
        [
            row.mode.to_owned(),
            row.writes.to_owned(),
            row.requests.to_string(),
            row.resets.to_string(),
            row.harmless.to_string(),
            row.truncated.to_string(),
            row.no_response.to_string(),
            grouped(row.lost_bytes),
            row.abort_on_close.to_string(),
            row.abort_on_data.to_string(),
            if row.as_expected { "yes" } else { "NO" }.to_owned(),
        ]
    });
    table::table(header, rows, 1, 2..header.len()).trim_fmt()
}

/// The rows in three paragraphs, and in a fourth if a row did not behave as the explanation says.
pub(super) fn sentences(rows: &[DemoRow]) -> String {
    let paragraphs = paragraphs(rows);
    let paragraphs = paragraphs.iter().map(|text| wrapped(text, "", ""));
    paragraphs.collect()
}

fn paragraphs(rows: &[DemoRow]) -> Vec<String> {
    let all = |expected: &[Expected]| -> Vec<&DemoRow> {
        rows.iter()
            .zip(&CASES)
            .filter(|(_, row)| expected.contains(&row.expected))
            .map(|(outcome, _)| outcome)
            .collect()
    };
    let sum = |rows: &[&DemoRow], count: fn(&DemoRow) -> u64| -> u64 {
        rows.iter().map(|row| count(row)).sum()
    };
    let mut texts = Vec::new();
    if let Some(lazy) = rows.first() {
        texts.push(format!(
            "The bug: with the body unread at close() or coming after it, {} of {} connections were reset; \
             {} responses were cut, {} never came, {} bytes lost (TCPAbortOnClose +{}, TCPAbortOnData +{}).",
            lazy.resets,
            lazy.requests,
            lazy.truncated,
            lazy.no_response,
            grouped(lazy.lost_bytes),
            lazy.abort_on_close,
            lazy.abort_on_data,
        ));
    }
    let cured = all(&[Expected::Clean, Expected::Refused]);
    let names: Vec<String> = cured
        .iter()
        .map(|row| format!("{} ({})", row.mode, row.writes))
        .collect();
    texts.push(format!(
        "The cures: {}: {} resets and {} lost responses in {} requests.",
        names.join(", "),
        sum(&cured, |row| row.resets),
        sum(&cured, |row| row.truncated + row.no_response),
        sum(&cured, |row| row.requests),
    ));
    let delayed = all(&[Expected::Harmless]);
    texts.push(format!(
        "No cure: delay only moves the RST behind the response: {} resets in {} requests, {} harmless.",
        sum(&delayed, |row| row.resets),
        sum(&delayed, |row| row.requests),
        sum(&delayed, |row| row.harmless),
    ));
    let wrong: Vec<String> = rows
        .iter()
        .filter(|row| !row.as_expected)
        .map(|row| format!("{} ({})", row.mode, row.writes))
        .collect();
    if !wrong.is_empty() {
        texts.push(format!(
            "NOT as explained: {}. Another load on this machine, or a gap too small for the body to come \
             apart from the head, may be why; LOG=warn shows each reset.",
            wrong.join(", ")
        ));
    }
    texts
}
