//! A check's report as Markdown, for a pull request.

use super::report::CheckReport;
use super::text::{COLUMN_NAMES, cells, no_kernel, settings, summary};
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
    let lines = [":---", ":---", ":---"].into_iter().chain(["---:"; 10]);
    text += &row(&lines.collect::<Vec<_>>());
    for scenario in &report.scenarios {
        for client in &scenario.clients {
            text += &row(&cells(scenario.name, client));
        }
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
    text += &format!("\n{}\n", settings(report));
    if let Some(why) = &report.no_kernel {
        text += &format!("\n{}\n", escaped(&no_kernel(why)));
    }
    text
}
