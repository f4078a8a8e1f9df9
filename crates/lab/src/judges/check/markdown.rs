//! A check's report as Markdown, for a pull request.

use super::compared_text::{COMPARED_LEFT, COMPARED_NAMES};
use super::comparison::Comparison;
use super::loss_text::losses_markdown;
use super::report::CheckReport;
use super::text::{COLUMN_NAMES, LEFT_COLUMNS, no_kernel, notes, rows, settings, summary};
use crate::shared::markdown::{escaped, row};

/// The report as Markdown.
pub(super) fn markdown(url: &str, report: &CheckReport) -> String {
    let mut text = format!("### rstlab check: {}\n\n", report.verdict.as_ref());
    if let Some(comparison) = &report.baseline {
        text += &compared(comparison);
    }
    text += &format!(
        "{}\n\n{}\n\n",
        escaped(&summary(url, report)),
        report.drain.sentence
    );
    text += &losses_markdown(url, &report.losses, escaped);
    let names = COLUMN_NAMES.map(|name| name.replace("-\n", "").replace('\n', " "));
    text += &row(&names);
    text += &row(&alignments(COLUMN_NAMES.len(), LEFT_COLUMNS));
    for cells in rows(report) {
        text += &row(&cells);
    }
    text.push('\n');
    for scenario in &report.scenarios {
        text += &format!(
            "- **{}** ({}; {}): {}\n",
            scenario.name,
            scenario.about,
            scenario.rule,
            escaped(&scenario.sentence)
        );
    }
    for note in notes(report) {
        text += &format!("\n{note}\n");
    }
    text += &format!("\n{}\n", settings(report));
    if let Some(why) = &report.no_kernel {
        text += &format!("\n{}\n", escaped(&no_kernel(why)));
    }
    text
}

/// The line below a table's names: the first columns are aligned to the left.
fn alignments(columns: usize, left: usize) -> Vec<&'static str> {
    let columns = (0..columns).map(|column| match column < left {
        true => ":---",
        false => "---:",
    });
    columns.collect()
}

/// What changed since the baseline.
fn compared(comparison: &Comparison) -> String {
    let mut text = format!("**{}**\n\n", comparison.sentence());
    for note in &comparison.notes {
        text += &format!("{}\n\n", escaped(note));
    }
    if !comparison.findings.is_empty() {
        text += &row(&COMPARED_NAMES.map(str::to_owned));
        text += &row(&alignments(COMPARED_NAMES.len(), COMPARED_LEFT));
        for finding in &comparison.findings {
            text += &row(&finding.cells());
        }
        text.push('\n');
    }
    text
}
