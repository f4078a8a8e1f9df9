//! A check's report as Markdown, for a pull request.

use super::report::CheckReport;
use super::text::{COLUMN_NAMES, LEFT_COLUMNS, no_kernel, notes, rows, settings, summary};
use crate::shared::markdown::{escaped, row};

/// The report as Markdown.
pub(super) fn markdown(url: &str, report: &CheckReport) -> String {
    let mut text = format!("### rstlab check: {}\n\n", report.verdict.as_ref());
    text += &format!(
        "{}\n\n{}\n\n",
        escaped(&summary(url, report)),
        report.drain.sentence
    );
    let names = COLUMN_NAMES.map(|name| name.replace("-\n", "").replace('\n', " "));
    text += &row(&names);
    let lines = (0..COLUMN_NAMES.len()).map(|column| match column < LEFT_COLUMNS {
        true => ":---",
        false => "---:",
    });
    text += &row(&lines.collect::<Vec<_>>());
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
