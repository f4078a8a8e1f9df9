//! A check's report for people, as text.

use std::net::SocketAddr;

use comfy_table::{ColumnConstraint, Table};
use strum::VariantArray as _;

use super::reasons;
use super::report::{CheckReport, ClientReport};
use super::trial::TrialOutcome;
use super::verdict::CheckVerdict;
use crate::shared::table::table;
use crate::shared::wrapped::{COLUMNS, columns, lines, wrapped};
use rstlab_cli::grouped;
use rstlab_witness::{Cause, Reason};

/// Heads of a table's columns, with the line break where it is narrow.
pub(super) const COLUMN_NAMES: [&str; 13] = [
    "scenario",
    "client",
    "verdict",
    "trials",
    "whole,\nFIN",
    "whole,\nreset",
    "cut,\nreset",
    "cut,\nEOF",
    "none,\nreset",
    "none,\nEOF",
    "time-\nout",
    "bad",
    "lost,\n95 %",
];

/// How many columns are before those of the outcomes.
const BEFORE_OUTCOMES: usize = 4;

/// The report for people, at most 100 columns wide.
pub(super) fn text(url: &str, report: &CheckReport) -> String {
    let mut text = wrapped(&summary(url, report), "", "");
    text += "\n";
    text += &scenario_table(report, columns());
    text += "\n";
    for scenario in &report.scenarios {
        if scenario.verdict != CheckVerdict::Pass {
            let sentence = format!("{}: {}", scenario.name, scenario.sentence);
            text += &wrapped(&sentence, "", "  ");
        }
    }
    text += &wrapped(&report.drain.sentence, "", "");
    if let Some(advice) = advice(report) {
        text += &wrapped(&format!("What to do: {advice}"), "", "");
    }
    text += &wrapped(&settings(report), "", "");
    if let Some(why) = &report.no_kernel {
        text += &wrapped(&no_kernel(why), "", "");
    }
    text
}

/// The request and the verdict.
pub(super) fn summary(url: &str, report: &CheckReport) -> String {
    let plain = &report.plain;
    let length = match plain.body_bytes {
        Some(bytes) => format!("{} bytes", grouped(bytes)),
        None if plain.whole => "a length that changes".to_owned(),
        None => "a response that is cut all the same".to_owned(),
    };
    let verdict = match report.verdict {
        CheckVerdict::Pass => "Nothing was lost, and no connection was reset.".to_owned(),
        CheckVerdict::Harmless => {
            "Nothing was lost. Connections were reset after responses that came whole.".to_owned()
        }
        CheckVerdict::CannotTell => "No loss was seen, but not every scenario can tell.".to_owned(),
        CheckVerdict::Loses => format!(
            "Responses were lost; cut responses are missing {} bytes.",
            grouped(report.lost_bytes())
        ),
    };
    let path = report.request.split(' ').next().unwrap_or_default();
    format!(
        "{path} {url} without a body is answered with {} and {length}. {verdict} It took {:.1} s.",
        plain.status, report.seconds
    )
}

/// What to do about the reset that lost most responses, if the kernel was asked why it was sent.
fn advice(report: &CheckReport) -> Option<&'static str> {
    let losing = report.scenarios.iter();
    let losing = losing.filter(|scenario| scenario.verdict == CheckVerdict::Loses);
    let clients = losing.flat_map(|scenario| &scenario.clients);
    let reasons = reasons::sum(clients.flat_map(|client| &client.reasons));
    let Ok(reason) = reasons.first()?.reason.parse::<Reason>();
    let cause = Cause::of(Some(&reason), None);
    (cause != Cause::Unknown).then(|| cause.advice())
}

/// Why the reasons of the resets are missing.
pub(super) fn no_kernel(why: &str) -> String {
    format!("The kernel was not asked why it reset connections: {why}.")
}

/// The settings that make a loss visible.
pub(super) fn settings(report: &CheckReport) -> String {
    let settings = &report.settings;
    // On a unix socket the sender's buffer counts: no receive buffer was asked for.
    let buffer = match report.address.parse::<SocketAddr>() {
        Ok(_) => format!(
            "a receive buffer of {} bytes, ",
            grouped(settings.receive_buffer_bytes.into())
        ),
        Err(_) => String::new(),
    };
    let at_once = match settings.at_once {
        1 => "one connection at a time, as the server serves one at a time".to_owned(),
        more => format!("{more} connections at once"),
    };
    format!(
        "Settings: {buffer}everything sent before reading, reading from {} ms after the first byte, {at_once}. \"stops\" is a client that stops at a write error, as nginx and Envoy do.",
        settings.read_delay_ms
    )
}

/// A row of a table: a scenario with a client.
pub(super) fn cells(name: &str, client: &ClientReport) -> Vec<String> {
    let counts = &client.counts;
    let mut cells = vec![
        name.to_owned(),
        client.client.as_ref().to_owned(),
        client.verdict.as_ref().to_owned(),
        counts.trials.to_string(),
    ];
    let number = |outcome: &TrialOutcome| match counts.outcomes.of(*outcome) {
        0 => "-".to_owned(),
        count => count.to_string(),
    };
    cells.extend(TrialOutcome::VARIANTS.iter().map(number));
    cells.push(client.lost_interval.map_or(String::new(), |(low, high)| {
        format!("{:.0}-{:.0}%", low * 100.0, high * 100.0)
    }));
    cells
}

fn scenario_table(report: &CheckReport, columns: usize) -> String {
    let rows = report.scenarios.iter().flat_map(|scenario| {
        let names = [scenario.name].into_iter().chain(std::iter::repeat(""));
        names
            .zip(&scenario.clients)
            .map(|(name, client)| cells(name, client))
    });
    let mut table = table(COLUMN_NAMES, rows, 1, 3..COLUMN_NAMES.len());
    if columns < COLUMNS {
        hide_unseen(&mut table, report);
    }
    lines(table, columns)
}

/// Leaves out the columns of outcomes that no trial had.
fn hide_unseen(table: &mut Table, report: &CheckReport) {
    let clients = || report.scenarios.iter().flat_map(|one| &one.clients);
    let outcomes = table.column_iter_mut().skip(BEFORE_OUTCOMES);
    for (column, outcome) in outcomes.zip(TrialOutcome::VARIANTS) {
        if clients().all(|client| client.counts.outcomes.of(*outcome) == 0) {
            column.set_constraint(ColumnConstraint::Hidden);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::drain::{Drain, DrainKind};
    use super::super::probe::Plain;
    use super::super::report::{CheckSettings, ScenarioReport};
    use super::super::scenarios::scenario_names;
    use super::super::trial::{Model, Trial};
    use super::*;

    fn trial(outcome: TrialOutcome) -> Trial {
        Trial {
            status: Some(200),
            body_bytes: u64::MAX / 1_000_000,
            lost_bytes: u64::MAX / 1_000_000,
            fits: true,
            bad: Some("bad ".repeat(100)),
            ..Trial::new(outcome)
        }
    }

    /// A report with the greatest possible numbers.
    fn report() -> CheckReport {
        let mut client = ClientReport::new(Model::StopsAtWriteError, ["a case".to_owned()]);
        for outcome in TrialOutcome::VARIANTS {
            for _ in 0..10_000 {
                client.add(0, trial(*outcome));
            }
        }
        client.verdict = CheckVerdict::CannotTell;
        client.lost_interval = Some((0.9, 1.0));
        let scenario = |name| ScenarioReport {
            name,
            about: "",
            rule: "",
            verdict: CheckVerdict::Loses,
            sentence: super::super::sentence::sentence(std::slice::from_ref(&client)),
            clients: vec![client.clone()],
        };
        CheckReport {
            address: "127.0.0.1:8000".to_owned(),
            request: "POST /".to_owned(),
            settings: CheckSettings {
                trials: 10_000,
                receive_buffer_bytes: 4096,
                read_delay_ms: 4,
                timeout_ms: 5000,
                at_once: 1,
            },
            plain: Plain::of_a_server_that_takes(Duration::ZERO, true),
            drain: Drain {
                kind: DrainKind::Unknown,
                bytes: None,
                milliseconds: None,
                sentence: "A word, ".repeat(30) + "a word.",
            },
            verdict: CheckVerdict::Loses,
            scenarios: scenario_names().map(scenario).collect(),
            no_kernel: Some("A word, ".repeat(30) + "a word"),
            seconds: 3600.0,
        }
    }

    #[test]
    fn the_receive_buffer_is_stated_where_one_was_asked_for() {
        let tcp = report();
        assert!(settings(&tcp).contains("a receive buffer of 4,096 bytes, everything"));
        let unix = CheckReport {
            address: "/run/server".to_owned(),
            ..tcp
        };
        assert!(settings(&unix).starts_with("Settings: everything sent before reading"));
    }

    #[test]
    fn a_table_of_80_columns_leaves_out_outcomes_that_no_trial_had() {
        let mut report = report();
        for client in report.scenarios.iter_mut().flat_map(|one| &mut one.clients) {
            let mut seen = ClientReport::new(Model::ReadsOn, []);
            seen.add(0, trial(TrialOutcome::WholeThenFin));
            seen.add(0, trial(TrialOutcome::TruncatedByReset));
            client.counts = seen.counts;
        }
        let wide = scenario_table(&report, COLUMNS);
        let narrow = scenario_table(&report, 80);
        for (name, hidden) in [
            ("time-", true),
            ("EOF", true),
            ("cut,", false),
            ("whole,", false),
        ] {
            assert!(wide.contains(name), "{wide}");
            assert_ne!(narrow.contains(name), hidden, "{narrow}");
        }
        assert!(
            narrow.lines().all(|line| line.chars().count() <= 80),
            "{narrow}"
        );
        assert_eq!(narrow.lines().count(), wide.lines().count());
    }

    #[test]
    fn a_report_with_the_greatest_numbers_fits_100_columns() {
        let text = text("http://127.0.0.1:8000/", &report());
        for line in text.lines() {
            assert!(line.chars().count() <= COLUMNS, "too wide:\n{line}");
            assert_eq!(line, line.trim_end());
        }
    }
}
