//! The report of a check of a proxy, as text and as Markdown.

use super::report::{SizeReport, ThroughReport};
use crate::shared::color::{Tone, tone_words};
use crate::shared::markdown::row;
use crate::shared::table::table;
use crate::shared::wrapped::{columns, lines, wrapped};
use rstlab_cli::grouped;
use strum::EnumMessage as _;

/// Heads of the table's columns.
const COLUMN_NAMES: [&str; 4] = ["body", "clients", "got the answer", "the others got"];

/// Tones of what is said first.
const HEADLINES: [(&str, Tone); 3] = [
    ("Every client got the answer", Tone::Good),
    ("Every client that was tried got the answer", Tone::Good),
    ("Some clients did not get the answer", Tone::Bad),
];

/// The report for people, at most 100 columns wide.
pub(in super::super) fn text(url: &str, report: &ThroughReport) -> String {
    let table = table(COLUMN_NAMES, report.sizes.iter().map(cells), 2, 0..3);
    let summary = wrapped(&summary(url, report), "", "");
    let mut text = tone_words(&summary, &HEADLINES) + "\n" + &lines(table, columns());
    for line in untried(report) {
        text += &wrapped(&line, "", "  ");
    }
    text
}

/// A line for each size of which not all clients were tried.
fn untried(report: &ThroughReport) -> Vec<String> {
    let line = |size: &SizeReport| {
        let why = size.untried.iter();
        let why: Vec<_> = why
            .map(|(why, count)| {
                format!(
                    "{} clients were not tried: {}",
                    grouped(*count),
                    why.get_message().unwrap_or_default()
                )
            })
            .collect();
        (!why.is_empty()).then(|| format!("{} B: {}.", grouped(size.body_bytes), why.join("; ")))
    };
    report.sizes.iter().filter_map(line).collect()
}

/// The report for a pull request.
pub(in super::super) fn markdown(url: &str, report: &ThroughReport) -> String {
    let mut text = format!("### rstlab check --through\n\n{}\n\n", summary(url, report));
    text += &row(&COLUMN_NAMES);
    text += &row(&["---:", "---:", "---:", ":---"]);
    for size in &report.sizes {
        text += &row(&cells(size));
    }
    for line in untried(report) {
        text += &format!("\n{line}\n");
    }
    text
}

fn summary(url: &str, report: &ThroughReport) -> String {
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
