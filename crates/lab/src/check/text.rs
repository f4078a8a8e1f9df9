use std::net::SocketAddr;

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, ColumnConstraint, Table};

use super::outcome::Outcome;
use super::report::{ClientReport, Report};
use super::verdict::Verdict;
use crate::wrapped::{COLUMNS, columns, lines, wrapped};
use rstlab_cli::grouped;

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

/// Columns before those of the outcomes.
const BEFORE_OUTCOMES: usize = 4;

/// The report for people, at most 100 columns wide.
pub(super) fn text(url: &str, report: &Report) -> String {
    let mut text = wrapped(&summary(url, report), "", "");
    text += "\n";
    text += &table(report, columns());
    text += "\n";
    for scenario in &report.scenarios {
        if scenario.verdict != Verdict::Pass {
            let sentence = format!("{}: {}", scenario.name, scenario.sentence);
            text += &wrapped(&sentence, "", "  ");
        }
    }
    text += &wrapped(&report.drain.sentence, "", "");
    text += &wrapped(&settings(report), "", "");
    if let Some(why) = &report.no_kernel {
        text += &wrapped(&no_kernel(why), "", "");
    }
    text
}

/// What was asked, and the verdict.
pub(super) fn summary(url: &str, report: &Report) -> String {
    let plain = &report.plain;
    let length = match plain.body_bytes {
        Some(bytes) => format!("{} bytes", grouped(bytes)),
        None if plain.whole => "a length that changes".to_owned(),
        None => "a response that does not come whole even so".to_owned(),
    };
    let verdict = match report.verdict {
        Verdict::Pass => "Nothing was lost, and no connection was reset.".to_owned(),
        Verdict::Harmless => {
            "Nothing was lost. Connections were reset after responses that came whole.".to_owned()
        }
        Verdict::CannotTell => {
            "Nothing was seen to be lost, but not every scenario can tell.".to_owned()
        }
        Verdict::Loses => format!(
            "Responses were lost; those that had begun lack {} bytes.",
            grouped(report.lost_bytes())
        ),
    };
    let path = report.request.split(' ').next().unwrap_or_default();
    format!(
        "{path} {url} without a body is answered with {} and {length}. {verdict} It took {:.1} s.",
        plain.status, report.seconds
    )
}

/// Why the reasons of the resets are missing.
pub(super) fn no_kernel(why: &str) -> String {
    format!("The kernel was not asked why it reset connections: {why}.")
}

/// With which settings a loss can be seen.
pub(super) fn settings(report: &Report) -> String {
    let settings = &report.settings;
    // On a unix socket the sender's buffer counts, and nothing is asked for.
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
        client.client.as_str().to_owned(),
        client.verdict.as_str().to_owned(),
        counts.trials.to_string(),
    ];
    let number = |outcome: &Outcome| match counts.outcomes.of(*outcome) {
        0 => "-".to_owned(),
        count => count.to_string(),
    };
    cells.extend(Outcome::ALL.iter().map(number));
    cells.push(client.lost_interval.map_or(String::new(), |(low, high)| {
        format!("{:.0}-{:.0}%", low * 100.0, high * 100.0)
    }));
    cells
}

fn table(report: &Report, columns: usize) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(COLUMN_NAMES);
    for scenario in &report.scenarios {
        for (number, client) in scenario.clients.iter().enumerate() {
            let name = if number == 0 { scenario.name } else { "" };
            table.add_row(cells(name, client));
        }
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 1));
    }
    for column in table.column_iter_mut().skip(3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    if columns < COLUMNS {
        hide_unseen(&mut table, report);
    }
    lines(table, columns)
}

/// Leaves the outcomes out that there were none of.
fn hide_unseen(table: &mut Table, report: &Report) {
    let clients = || report.scenarios.iter().flat_map(|one| &one.clients);
    let outcomes = table.column_iter_mut().skip(BEFORE_OUTCOMES);
    for (column, outcome) in outcomes.zip(Outcome::ALL) {
        if clients().all(|client| client.counts.outcomes.of(outcome) == 0) {
            column.set_constraint(ColumnConstraint::Hidden);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::outcome::{Model, Trial};
    use super::super::report::{ScenarioReport, Settings, Tally};
    use super::super::{Drain, Kind, Plain, scenario_names};
    use super::*;

    fn trial(outcome: Outcome) -> Trial {
        Trial {
            outcome,
            status: Some(200),
            body_bytes: u64::MAX / 1_000_000,
            lost_bytes: u64::MAX / 1_000_000,
            fits: true,
            still_open: false,
            failure: None,
            bad: Some("bad ".repeat(100)),
            made: None,
            first_byte: None,
            beginning: Box::default(),
        }
    }

    /// The greatest numbers that there may be.
    fn report() -> Report {
        let mut tally = Tally::new(Model::StopsAtWriteError, ["a case".to_owned()]);
        for outcome in Outcome::ALL {
            for _ in 0..10_000 {
                tally.add(0, trial(outcome));
            }
        }
        let client = ClientReport {
            verdict: Verdict::CannotTell,
            lost_interval: Some((0.9, 1.0)),
            ..tally.report(false)
        };
        let scenario = |name| ScenarioReport {
            name,
            about: "",
            rule: "",
            verdict: Verdict::Loses,
            sentence: super::super::sentence::sentence(std::slice::from_ref(&client)),
            clients: vec![client.clone()],
        };
        Report {
            address: "127.0.0.1:8000".to_owned(),
            request: "POST /".to_owned(),
            settings: Settings {
                trials: 10_000,
                receive_buffer_bytes: 4096,
                read_delay_ms: 4,
                timeout_ms: 5000,
                at_once: 1,
            },
            plain: Plain {
                status: 200,
                whole: true,
                body_bytes: None,
                first_byte_us: 1,
                one_at_a_time: true,
                beginning: Box::default(),
            },
            drain: Drain {
                kind: Kind::Unknown,
                bytes: None,
                milliseconds: None,
                sentence: "A word, ".repeat(30) + "a word.",
            },
            verdict: Verdict::Loses,
            scenarios: scenario_names().map(scenario).collect(),
            no_kernel: Some("A word, ".repeat(30) + "a word"),
            seconds: 3600.0,
        }
    }

    #[test]
    fn a_receive_buffer_is_told_where_it_is_asked_for() {
        let tcp = report();
        assert!(settings(&tcp).contains("a receive buffer of 4,096 bytes, everything"));
        let unix = Report {
            address: "/run/server".to_owned(),
            ..tcp
        };
        assert!(settings(&unix).starts_with("Settings: everything sent before reading"));
    }

    #[test]
    fn on_80_columns_the_outcomes_that_were_not_seen_are_left_out() {
        let mut report = report();
        for client in report.scenarios.iter_mut().flat_map(|one| &mut one.clients) {
            let mut tally = Tally::new(Model::ReadsOn, ["a case".to_owned()]);
            tally.add(0, trial(Outcome::WholeThenFin));
            tally.add(0, trial(Outcome::TruncatedByReset));
            client.counts = tally.report(false).counts;
        }
        let wide = table(&report, COLUMNS);
        let narrow = table(&report, 80);
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
    fn the_greatest_numbers_fit_100_columns() {
        let text = text("http://127.0.0.1:8000/", &report());
        for line in text.lines() {
            assert!(line.chars().count() <= COLUMNS, "too wide:\n{line}");
            assert_eq!(line, line.trim_end());
        }
    }
}
