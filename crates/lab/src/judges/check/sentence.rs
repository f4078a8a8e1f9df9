//! What a server does in a scenario, in a sentence.

use std::collections::BTreeMap;

use super::counts::Counts;
use super::reasons;
use super::report::{CaseReport, ClientReport};
use super::trial::{ConnectionUse, Model, TrialOutcome};
use super::verdict::CheckVerdict;
use rstlab_cli::grouped;
use strum::VariantArray as _;

/// How many cases are named; the rest are counted.
const MAX_NAMED: usize = 6;

/// What the server does in a scenario, from its trials with all clients.
pub(super) fn sentence(clients: &[ClientReport]) -> String {
    let mut all = Counts::default();
    for client in clients {
        all.merge(&client.counts);
    }
    if all.trials == 0 {
        return "No trial: the time was up.".to_owned();
    }
    let mut text = match clients.iter().map(|one| one.verdict).max() {
        None => String::new(),
        Some(CheckVerdict::Pass) => pass(&all),
        Some(CheckVerdict::Harmless) => {
            let resets = all.outcomes.of(TrialOutcome::WholeThenReset);
            format!(
                "{} of {} connections are reset, after responses that came whole: harmless.{}",
                grouped(resets),
                grouped(all.trials),
                one_trial(resets)
            )
        }
        Some(CheckVerdict::CannotTell) => cannot_tell(clients, &all),
        Some(CheckVerdict::Loses) => loses(clients, &all),
    };
    if let Some(others) = other_statuses(clients) {
        text += &format!(" Answers with another status than expected: {others}.");
    }
    let reasons = reasons::sum(clients.iter().flat_map(|one| &one.reasons));
    let reasons = reasons
        .iter()
        .map(|one| format!("{} {}", one.reason, grouped(one.count)));
    let reasons: Vec<_> = reasons.collect();
    if !reasons.is_empty() {
        text += &format!(" The kernel: {}.", reasons.join(", "));
    }
    text
}

/// The statuses that are not as expected, and how many answers had them; `None` if there are none.
pub(super) fn other_statuses<'a>(
    clients: impl IntoIterator<Item = &'a ClientReport>,
) -> Option<String> {
    let mut counts = BTreeMap::new();
    let statuses = clients.into_iter().flat_map(|one| &one.statuses);
    for one in statuses.filter(|one| one.is_other) {
        *counts.entry(one.status).or_insert(0) += one.count;
    }
    let texts = counts
        .iter()
        .map(|(status, count)| format!("{status} ({})", grouped(*count)));
    let texts: Vec<_> = texts.collect();
    (!texts.is_empty()).then(|| texts.join(", "))
}

/// A verdict that hangs on one trial says so: the next check may have another verdict.
fn one_trial(count: u64) -> &'static str {
    match count {
        1 => " This verdict hangs on one trial: a check with more --trials is surer.",
        _ => "",
    }
}

fn pass(all: &Counts) -> String {
    let ends = match all.left_open {
        0 => "a FIN follows",
        open if open == all.trials => "the connection stays open",
        _ => "a FIN follows, or the connection stays open",
    };
    format!("Every response comes whole; {ends}.")
}

fn cannot_tell(clients: &[ClientReport], all: &Counts) -> String {
    let mut why = Vec::new();
    let late = all.outcomes.of(TrialOutcome::Timeout);
    let silent = clients
        .iter()
        .flat_map(|one| &one.cases)
        .filter(|case| case.is_too_small());
    let bytes = silent.map(|case| case.counts.body_bytes).max();
    if late > 0 {
        why.push(format!(
            "{} of {} responses did not end in time.{}",
            grouped(late),
            grouped(all.trials),
            one_trial(late)
        ));
    } else if all.turned_away > 0 {
        why.push(format!(
            "{} of {} requests were turned away.",
            grouped(all.turned_away),
            grouped(all.trials)
        ));
    } else if let Some(bytes) = bytes {
        why.push(format!(
            "{} of {} connections are reset, but the response of {} bytes fits the socket buffer, where no reset can \
             take it.",
            grouped(all.outcomes.of(TrialOutcome::WholeThenReset)),
            grouped(all.trials),
            grouped(bytes),
        ));
    }
    why.extend(untried(clients));
    format!("Cannot tell: {}", why.join(" "))
}

/// The cases that one of the clients has not tried.
fn untried(clients: &[ClientReport]) -> Option<String> {
    let cases = |one: &ClientReport| one.cases.len();
    let uses = uses(clients);
    let all: usize = uses
        .iter()
        .map(|(_, same)| same.first().map_or(0, |one| cases(one)))
        .sum();
    let (count, labels) = named(&uses, |same| {
        let is_untried = same.iter().any(|case| case.counts.trials == 0);
        is_untried.then(String::new)
    });
    (count > 0).then(|| {
        format!(
            "{count} of {all} combinations of size, gap and connection were not tried: {labels}."
        )
    })
}

/// Clients by what their requests say about the connection.
fn uses(clients: &[ClientReport]) -> Vec<(ConnectionUse, Vec<&ClientReport>)> {
    let uses = ConnectionUse::VARIANTS.iter().map(|connection| {
        let same = clients.iter().filter(|one| one.connection == *connection);
        (*connection, same.collect::<Vec<_>>())
    });
    uses.filter(|(_, same)| !same.is_empty()).collect()
}

/// How many cases `about` has words for, and the labels of the first of them, each with its words; the cases of one use
/// of the connection stand before its name.
fn named(
    uses: &[(ConnectionUse, Vec<&ClientReport>)],
    about: impl Fn(&[&CaseReport]) -> Option<String>,
) -> (usize, String) {
    let (mut all, mut texts) = (0, Vec::new());
    for (connection, clients) in uses {
        let cases = clients.first().map_or(0, |one| one.cases.len());
        let labels = (0..cases).filter_map(|number| {
            let same = clients.iter().filter_map(|one| one.cases.get(number));
            let same: Vec<_> = same.collect();
            Some(same.first()?.case.clone() + &about(&same)?)
        });
        let mut labels: Vec<_> = labels.collect();
        let count = labels.len();
        labels.truncate(MAX_NAMED);
        if count > MAX_NAMED {
            labels.push(format!("{} more", count - MAX_NAMED));
        }
        if count > 0 {
            texts.push(format!("{} ({})", labels.join("; "), connection.as_ref()));
        }
        all += count;
    }
    (all, texts.join("; "))
}

fn loses(clients: &[ClientReport], all: &Counts) -> String {
    let ways = [
        (TrialOutcome::TruncatedByReset, "cut by a reset"),
        (
            TrialOutcome::TruncatedByEof,
            "cut by a FIN, without a reset",
        ),
        (
            TrialOutcome::NoResponseReset,
            "reset before their first byte was read",
        ),
        (
            TrialOutcome::NoResponseEof,
            "ended by a FIN before their first byte",
        ),
        (
            TrialOutcome::GatewayError,
            "with 502, 503 or 504 in place of the answer",
        ),
        (TrialOutcome::BadResponse, "bad"),
    ];
    let ways: Vec<String> = ways
        .iter()
        .filter(|(outcome, _)| all.outcomes.of(*outcome) > 0)
        .map(|(outcome, how)| format!("{} {how}", grouped(all.outcomes.of(*outcome))))
        .collect();
    let lost = all.outcomes.lost();
    let mut text = format!(
        "{} of {} responses {} lost: {}",
        grouped(lost),
        grouped(all.trials),
        if lost == 1 { "is" } else { "are" },
        ways.join(", ")
    );
    if let Some(bad) = clients.iter().find_map(|one| one.bad.as_deref()) {
        text += &format!(" ({bad})");
    }
    if all.lost_bytes > 0 {
        let bytes = grouped(all.lost_bytes);
        text += &format!("; cut responses are missing {bytes} bytes");
    }
    text += &format!(
        ".{} Who loses: {}.",
        one_trial(lost),
        losing_clients(clients)
    );
    let (_, labels) = named(&uses(clients), |same| {
        let lost: u64 = same.iter().map(|case| case.counts.outcomes.lost()).sum();
        let trials: u64 = same.iter().map(|case| case.counts.trials).sum();
        (lost > 0).then(|| format!(": {} of {}", grouped(lost), grouped(trials)))
    });
    text + &format!(" Where: {labels}.")
}

/// The clients that lose responses, and how many.
fn losing_clients(clients: &[ClientReport]) -> String {
    let losing = Model::VARIANTS.iter().filter_map(|model| {
        let same = || clients.iter().filter(|one| one.client == *model);
        let lost: u64 = same().map(|one| one.counts.outcomes.lost()).sum();
        let trials: u64 = same().map(|one| one.counts.trials).sum();
        let name = match model {
            Model::Ordinary => "the ordinary client",
            Model::ReadsOn => "the one that reads on",
            Model::StopsAtWriteError => "the one that stops",
        };
        (lost > 0).then(|| format!("{name} {} of {}", grouped(lost), grouped(trials)))
    });
    losing.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::severity::RequestKind;
    use super::super::trial::Trial;
    use super::*;

    fn whole() -> Trial {
        Trial {
            status: Some(200),
            body_bytes: 9,
            ..Trial::new(TrialOutcome::WholeThenFin)
        }
    }

    /// The verdict and sentence of two clients that tried the first so many of eight cases.
    fn tried(cases: [usize; 2]) -> (CheckVerdict, String) {
        let clients = [Model::ReadsOn, Model::StopsAtWriteError];
        let reports = clients.iter().zip(cases).map(|(client, tried)| {
            let mut report = ClientReport::new(
                *client,
                ConnectionUse::Kept,
                (0..8).map(|case| (format!("{case} B"), RequestKind::Usual)),
            );
            for case in 0..tried {
                report.add(case, whole());
            }
            report.judge(false);
            report
        });
        let reports: Vec<_> = reports.collect();
        let worst = reports.iter().map(|one| one.verdict).max();
        (worst.unwrap(), sentence(&reports))
    }

    #[test]
    fn a_scenario_with_an_untried_case_does_not_pass() {
        let (verdict, text) = tried([8, 8]);
        assert_eq!(verdict, CheckVerdict::Pass);
        assert_eq!(text, "Every response comes whole; a FIN follows.");
        let (verdict, text) = tried([8, 6]);
        assert_eq!(verdict, CheckVerdict::CannotTell);
        assert_eq!(
            text,
            "Cannot tell: 2 of 8 combinations of size, gap and connection were not tried: 6 B; 7 B (kept)."
        );
        let (_, text) = tried([1, 8]);
        assert!(text.ends_with("7 of 8 combinations of size, gap and connection were not tried: 1 B; 2 B; 3 B; 4 B; 5 B; 6 B; 1 more (kept)."), "{text}");
        assert_eq!(tried([0, 0]).1, "No trial: the time was up.");
    }

    #[test]
    fn a_sentence_names_the_cases_and_clients_that_lost() {
        let mut reports = Vec::new();
        for connection in ConnectionUse::VARIANTS {
            for client in Model::VARIANTS {
                let cases = ["22 B, 2ms", "9 B, 2ms"];
                let cases = cases.map(|case| (case.to_owned(), RequestKind::Usual));
                let mut report = ClientReport::new(*client, *connection, cases);
                for case in [0, 1, 1] {
                    report.add(case, whole());
                }
                if (*client, *connection) == (Model::StopsAtWriteError, ConnectionUse::Kept) {
                    report.add(1, Trial::new(TrialOutcome::NoResponseReset));
                }
                report.judge(false);
                reports.push(report);
            }
        }
        assert_eq!(
            sentence(&reports),
            "1 of 19 responses is lost: 1 reset before their first byte was read. This verdict hangs on one trial: a \
             check with more --trials is surer. Who loses: the one that stops 1 of 7. Where: 9 B, 2ms: 1 of 7 (kept)."
        );
    }

    #[test]
    fn a_sentence_names_statuses_that_are_not_as_expected() {
        let cases = [("a case".to_owned(), RequestKind::Usual)];
        let mut report = ClientReport::new(Model::Ordinary, ConnectionUse::Close, cases);
        report.add(0, whole());
        let refused = Trial {
            status: Some(413),
            is_other_status: true,
            ..whole()
        };
        report.add(0, refused);
        report.judge(false);
        assert_eq!(report.verdict, CheckVerdict::Pass);
        let text = sentence(&[report]);
        let part = "Answers with another status than expected: 413 (1).";
        assert!(text.ends_with(part), "{text}");
    }
}
