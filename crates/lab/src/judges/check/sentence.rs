//! What a server does in a scenario, in a sentence.

use super::counts::Counts;
use super::reasons;
use super::report::ClientReport;
use super::trial::TrialOutcome;
use super::verdict::CheckVerdict;
use rstlab_cli::grouped;

/// How many combinations are named; the rest are counted.
const MAX_NAMED: usize = 6;

/// What the server does in a scenario, from its trials with both clients.
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
        Some(CheckVerdict::Harmless) => format!(
            "{} of {} connections are reset, after responses that came whole: harmless.",
            grouped(all.outcomes.of(TrialOutcome::WholeThenReset)),
            grouped(all.trials)
        ),
        Some(CheckVerdict::CannotTell) => cannot_tell(clients, &all),
        Some(CheckVerdict::Loses) => loses(clients, &all),
    };
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
    let cases = clients.iter().flat_map(|one| &one.cases);
    let silent = cases.filter(|case| {
        case.verdict == CheckVerdict::CannotTell && case.counts.fits > 0 && case.counts.trials > 0
    });
    let bytes = silent.map(|case| case.counts.body_bytes).max();
    if late > 0 {
        why.push(format!(
            "{} of {} responses did not end in time.",
            grouped(late),
            grouped(all.trials)
        ));
    } else if let Some(bytes) = bytes {
        why.push(format!(
            "{} of {} connections are reset, but the response of {} bytes fits the socket buffer, where no reset can \
             take it. Ask for a path with a larger response, over 16 KiB.",
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
    let cases = clients.first().map_or(0, |one| one.cases.len());
    let is_untried = |number: &usize| {
        let mut same = clients.iter().filter_map(|one| one.cases.get(*number));
        same.any(|case| case.counts.trials == 0)
    };
    let untried: Vec<_> = (0..cases).filter(is_untried).collect();
    let labels = untried.iter().take(MAX_NAMED);
    let labels = labels.filter_map(|number| clients.first()?.cases.get(*number));
    let mut labels: Vec<_> = labels.map(|case| case.case.clone()).collect();
    if untried.len() > MAX_NAMED {
        labels.push(format!("{} more", untried.len() - MAX_NAMED));
    }
    (!untried.is_empty()).then(|| {
        format!(
            "{} of {cases} combinations of size and gap were not tried: {}.",
            untried.len(),
            labels.join("; ")
        )
    })
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
        (TrialOutcome::BadResponse, "bad"),
    ];
    let ways: Vec<String> = ways
        .iter()
        .filter(|(outcome, _)| all.outcomes.of(*outcome) > 0)
        .map(|(outcome, how)| format!("{} {how}", grouped(all.outcomes.of(*outcome))))
        .collect();
    let mut text = format!(
        "{} of {} responses are lost: {}",
        grouped(all.outcomes.lost()),
        grouped(all.trials),
        ways.join(", ")
    );
    if let Some(bad) = clients.iter().find_map(|one| one.bad.as_deref()) {
        text += &format!(" ({bad})");
    }
    if all.lost_bytes > 0 {
        let bytes = grouped(all.lost_bytes);
        text += &format!("; cut responses are missing {bytes} bytes");
    }
    text.push('.');
    let keeps = |one: &&ClientReport| one.verdict != CheckVerdict::Loses;
    if let Some(one) = clients.iter().find(keeps) {
        text += &format!(" The client that {} loses none.", one.client.as_ref());
    }
    let whole = whole_cases(clients);
    if !whole.is_empty() {
        text += &format!(" No client loses any at {}.", whole.join("; "));
    }
    text
}

/// The cases in which neither client lost a response.
fn whole_cases(clients: &[ClientReport]) -> Vec<&str> {
    let labels = clients.first().into_iter().flat_map(|one| &one.cases);
    labels
        .map(|case| case.case.as_str())
        .filter(|label| {
            let mut same = clients
                .iter()
                .flat_map(|one| one.cases.iter().find(|case| case.case == *label));
            same.all(|case| case.counts.trials > 0 && case.counts.outcomes.lost() == 0)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::trial::{Model, Trial};
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
            let mut report = ClientReport::new(*client, (0..8).map(|case| format!("{case} B")));
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
            "Cannot tell: 2 of 8 combinations of size and gap were not tried: 6 B; 7 B."
        );
        let (_, text) = tried([1, 8]);
        assert!(text.ends_with("7 of 8 combinations of size and gap were not tried: 1 B; 2 B; 3 B; 4 B; 5 B; 6 B; 1 more."), "{text}");
        assert_eq!(tried([0, 0]).1, "No trial: the time was up.");
    }
}
