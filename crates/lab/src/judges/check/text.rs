//! A check's report for people, as text.

use std::net::SocketAddr;

use strum::VariantArray as _;

use super::compared_text;
use super::counts::Counts;
use super::loss_text::{SEVERITIES, headline, losses_text};
use super::report::{CheckReport, ClientReport};
use super::sentence::other_statuses;
use super::trial::{Model, TrialOutcome};
use super::verdict::CheckVerdict;
use super::what_to_ask_for::{is_too_small, what_to_ask_for};
use crate::shared::color::{Tone, tone_words};
use crate::shared::table::table;
use crate::shared::wrapped::{columns, lines, wrapped};
use rstlab_cli::grouped;

/// Heads of a table's columns, with the line break where it is narrow.
pub(super) const COLUMN_NAMES: [&str; 9] = [
    "scenario",
    "conn.",
    "verdict",
    "lost:\nordinary",
    "lost:\nreads on",
    "lost:\nstops",
    "reset,\nwhole",
    "time-\nout",
    "other\nstatus",
];

/// How many columns are aligned to the left.
pub(super) const LEFT_COLUMNS: usize = 3;

/// Tones of the verdicts in tables.
pub(crate) const VERDICTS: [(&str, Tone); 4] = [
    ("pass", Tone::Good),
    ("harmless", Tone::Good),
    ("can't tell", Tone::Unsure),
    ("loses", Tone::Bad),
];

/// Tones of what is said first.
const HEADLINES: [(&str, Tone); 3] = [
    ("Nothing was lost", Tone::Good),
    ("No loss was seen", Tone::Unsure),
    ("Responses were lost", Tone::Bad),
];

/// The report for people, at most 100 columns wide.
pub(super) fn text(url: &str, report: &CheckReport) -> String {
    let mut text = String::new();
    if let Some(comparison) = &report.baseline {
        text += &compared_text::text(comparison);
        text += "\n";
    }
    let tones = [&HEADLINES[..], &SEVERITIES].concat();
    text += &tone_words(&wrapped(&summary(url, report), "", ""), &tones);
    text += "\n";
    text += &losses_text(url, &report.losses);
    text += &tone_words(&scenario_table(report, columns()), &VERDICTS);
    text += "\n";
    let is_said_above = is_too_small(&report.plain, is_unix(report));
    for scenario in &report.scenarios {
        let is_said = is_said_above && scenario.is_too_small();
        let is_plain =
            scenario.verdict == CheckVerdict::Pass && other_statuses(&scenario.clients).is_none();
        if !is_said && !is_plain {
            let sentence = format!("{}: {}", scenario.name, scenario.sentence);
            text += &wrapped(&sentence, "", "  ");
        }
    }
    for note in notes(report) {
        text += &wrapped(&note, "", "");
    }
    text += &wrapped(&report.drain.sentence, "", "");
    text += &wrapped(&settings(report), "", "");
    if let Some(why) = &report.no_kernel {
        text += &wrapped(&no_kernel(why), "", "");
    }
    text
}

/// Of so many trials one may be late without a word about it: most machines pause now and then.
const LATE_IS_USUAL: u64 = 100;

/// What the counts don't say.
pub(super) fn notes(report: &CheckReport) -> Vec<String> {
    let mut notes = Vec::new();
    if report.interrupted {
        let note = "The check was interrupted: this is what was tried so far.";
        notes.push(note.to_owned());
    }
    notes.extend(report.outages.sentence());
    let all = report.counts();
    if all.late * LATE_IS_USUAL > all.trials {
        notes.push(format!(
            "{} of {} trials were late, because this machine was busy: they lost {} responses, and may have lost more on \
             time. Check again when the machine is idle.",
            grouped(all.late),
            grouped(all.trials),
            grouped(all.late_lost)
        ));
    }
    notes
}

/// The worst that was found, the request and its answer.
pub(super) fn summary(url: &str, report: &CheckReport) -> String {
    let plain = &report.plain;
    let length = match plain.body_bytes {
        Some(bytes) => format!("{} bytes", grouped(bytes)),
        None if plain.whole => "a length that changes".to_owned(),
        None => "a response that is cut all the same".to_owned(),
    };
    let all = report.counts();
    let lost = match (all.outcomes.lost(), all.lost_bytes) {
        (0, _) => String::new(),
        (lost, missing) => {
            let missing = match missing {
                0 => String::new(),
                bytes => format!("; cut responses are missing {} bytes", grouped(bytes)),
            };
            format!(
                " Responses were lost: {} of {}{missing}.",
                grouped(lost),
                grouped(all.trials)
            )
        }
    };
    let clients = report.scenarios.iter().flat_map(|one| &one.clients);
    let others = other_statuses(clients).map_or(String::new(), |others| {
        let expected: Vec<_> = plain.expected_statuses.iter().map(u16::to_string).collect();
        format!(
            " Answers with another status than {}: {others}.",
            expected.join(", ")
        )
    });
    let path = report.request.split(' ').next().unwrap_or_default();
    let body = match report.settings.data_bytes {
        0 => "without a body".to_owned(),
        bytes => format!("with the given body of {} bytes", grouped(bytes)),
    };
    let advice = what_to_ask_for(plain, is_unix(report)).map(|advice| format!(" {advice}"));
    format!(
        "{} {path} {url} {body} is answered with {} and {length}.{}{lost}{others} It took {:.1} s.",
        headline(report.verdict, &report.losses),
        plain.status,
        advice.unwrap_or_default(),
        report.seconds
    )
}

fn is_unix(report: &CheckReport) -> bool {
    report.address.parse::<SocketAddr>().is_err()
}

/// Why the reasons of the resets are missing.
pub(super) fn no_kernel(why: &str) -> String {
    format!("The kernel was not asked why it reset connections: {why}.")
}

/// The settings that make a loss visible.
pub(super) fn settings(report: &CheckReport) -> String {
    let settings = &report.settings;
    // On a unix socket the sender's buffer counts: no receive buffer was asked for.
    let buffer = match is_unix(report) {
        true => String::new(),
        false => format!(
            "a receive buffer of {} bytes, ",
            grouped(settings.receive_buffer_bytes.into())
        ),
    };
    let at_once = match settings.at_once {
        1 => "one connection at a time, as the server serves one at a time".to_owned(),
        more => format!("{more} connections at once"),
    };
    let played_as = settings.played_as.map_or(String::new(), |client| {
        format!("The client is played as {client}. ")
    });
    format!(
        "{played_as}Settings: {buffer}everything sent before reading, reading from {} ms after the first byte, {at_once}. \"stops\" is a client that stops at a write error, as nginx and Envoy do; the ordinary client has the system's buffers and reads at once. \"kept\" are requests that leave the connection open, \"close\" those with Connection: close.",
        settings.read_delay_ms
    )
}

/// The rows of a table: one for each scenario and each use of the connection.
pub(super) fn rows(report: &CheckReport) -> impl Iterator<Item = Vec<String>> {
    report.scenarios.iter().flat_map(|scenario| {
        let same = scenario
            .clients
            .chunk_by(|one, next| one.connection == next.connection);
        same.map(|clients| cells(scenario.name, clients))
    })
}

/// A row: the clients of a scenario that use the connection in the same way.
fn cells(name: &str, clients: &[ClientReport]) -> Vec<String> {
    let verdict = CheckVerdict::worst(clients.iter().map(|one| one.verdict));
    let connection = clients.first().map_or("", |one| one.connection.as_ref());
    let mut cells = vec![
        name.to_owned(),
        connection.to_owned(),
        verdict.as_ref().to_owned(),
    ];
    cells.extend(Model::VARIANTS.iter().map(|model| {
        let client = clients.iter().find(|one| one.client == *model);
        client.map_or(String::new(), |one| {
            format!("{}/{}", one.counts.outcomes.lost(), one.counts.trials)
        })
    }));
    let mut all = Counts::default();
    for client in clients {
        all.merge(&client.counts);
    }
    let numbers = [
        all.outcomes.of(TrialOutcome::WholeThenReset),
        all.outcomes.of(TrialOutcome::Timeout),
        all.other_statuses,
    ];
    cells.extend(numbers.map(|count| match count {
        0 => "-".to_owned(),
        count => count.to_string(),
    }));
    cells
}

fn scenario_table(report: &CheckReport, columns: usize) -> String {
    let mut last = String::new();
    let rows = rows(report).map(|mut row| {
        // A scenario's name stands in its first row only.
        match row[0] == last {
            true => row[0].clear(),
            false => last.clone_from(&row[0]),
        }
        row
    });
    let right = LEFT_COLUMNS..COLUMN_NAMES.len();
    lines(table(COLUMN_NAMES, rows, 1, right), columns)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::drain::{Drain, DrainKind};
    use super::super::losses::losses;
    use super::super::outages::Outages;
    use super::super::plain_advice::ServerTraits;
    use super::super::probe::Plain;
    use super::super::report::{CheckSettings, ScenarioReport, VERSION};
    use super::super::scenarios::scenario_names;
    use super::super::severity::RequestKind;
    use super::super::trial::{ConnectionUse, Trial};
    use super::*;
    use crate::shared::wrapped::COLUMNS;

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
        let cases = [("a case".to_owned(), RequestKind::Usual)];
        let mut client = ClientReport::new(Model::StopsAtWriteError, ConnectionUse::Close, cases);
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
            severity: None,
            sentence: super::super::sentence::sentence(std::slice::from_ref(&client)),
            clients: vec![client.clone()],
        };
        let scenarios: Vec<_> = scenario_names().map(scenario).collect();
        let drain = Drain {
            kind: DrainKind::Unknown,
            bytes: None,
            milliseconds: None,
            sentence: "A word, ".repeat(30) + "a word.",
        };
        let server = ServerTraits {
            server: None,
            powered_by: None,
            drain: &drain,
        };
        CheckReport {
            version: VERSION,
            address: "127.0.0.1:8000".to_owned(),
            request: "POST /".to_owned(),
            settings: CheckSettings {
                trials: 10_000,
                receive_buffer_bytes: 4096,
                read_delay_ms: 4,
                timeout_ms: 5000,
                at_once: 1,
                data_bytes: 0,
                played_as: None,
            },
            plain: Plain::of_a_server_that_takes(Duration::ZERO, true),
            drain: drain.clone(),
            verdict: CheckVerdict::Loses,
            losses: losses(&scenarios, &server),
            scenarios,
            outages: Outages::default(),
            interrupted: false,
            baseline: None,
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
    fn missing_bytes_are_told_only_if_there_are_any() {
        let mut report = report();
        assert!(summary("", &report).contains("; cut responses are missing "));
        for client in report.scenarios.iter_mut().flat_map(|one| &mut one.clients) {
            client.counts.lost_bytes = 0;
        }
        assert!(!summary("", &report).contains("missing"));
    }

    #[test]
    fn a_table_is_no_wider_than_80_columns() {
        let mut report = report();
        let both = [ConnectionUse::Kept, ConnectionUse::Close];
        for scenario in &mut report.scenarios {
            let clients = both.map(|connection| {
                Model::VARIANTS.iter().map(move |model| {
                    let mut seen = ClientReport::new(*model, connection, []);
                    for _ in 0..100 {
                        seen.add(0, trial(TrialOutcome::NoResponseReset));
                    }
                    seen.verdict = CheckVerdict::CannotTell;
                    seen
                })
            });
            scenario.clients = clients.into_iter().flatten().collect();
        }
        let table = scenario_table(&report, COLUMNS);
        for line in table.lines() {
            assert!(line.chars().count() <= 80, "too wide:\n{table}");
        }
        assert_eq!(table.lines().count(), 2 + 2 * report.scenarios.len());
        assert_eq!(
            scenario_table(&report, 80).lines().count(),
            table.lines().count()
        );
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
