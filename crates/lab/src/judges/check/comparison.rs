//! What changed from an earlier check to this one, finding by finding.

use schemars::JsonSchema;
use serde::Serialize;
use strum::AsRefStr;

use super::trial::{ConnectionUse, Model};
use super::verdict::interval;

/// The check held against an earlier one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Comparison {
    /// Where the two checks differ in more than their results, and what to do about it.
    pub notes: Vec<String>,
    /// What at least one of the two checks found, the worst change first.
    pub findings: Vec<Finding>,
}

/// A scenario with a client and what its requests say about the connection, in both checks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Finding {
    /// The scenario's name.
    pub scenario: String,
    /// What the requests say about the connection.
    pub connection: ConnectionUse,
    /// How the client reads, and what it does when sending fails.
    pub client: Model,
    /// From the earlier check to this one.
    pub change: Change,
    /// The trials of the earlier check; null if the client did not play this scenario there.
    pub before: Option<FailedShare>,
    /// The trials of this check; null if the client did not play this scenario.
    pub now: Option<FailedShare>,
}

/// Trials, and those of them that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct FailedShare {
    /// Trials that lost a response; with `--fail-on reset` also those whose connection was reset.
    pub failed: u64,
    /// All trials.
    pub trials: u64,
}

/// How a finding changed, from the worst to the best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema, AsRefStr)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "lowercase")]
pub enum Change {
    /// No trial failed before, or there was none; at least one fails now.
    New,
    /// Trials fail more often: Wilson's 95 % intervals of both shares do not meet.
    Worse,
    /// Trials fail as before, or less often.
    #[strum(serialize = "still there")]
    StillThere,
    /// Trials failed before, and this check can't tell: the client did not play the scenario, a trial timed out, or a
    /// size and gap was not tried.
    #[strum(serialize = "not told")]
    NotTold,
    /// No trial fails now, but Wilson's 95 % intervals of both shares meet: there are too few trials to exclude luck.
    #[strum(serialize = "perhaps fixed")]
    PerhapsFixed,
    /// No trial fails now.
    Fixed,
}

/// The change of one finding; `None` if neither check found anything. `can_tell` is false if a case of this check was not tried,
/// or a trial timed out.
pub(super) fn change(
    before: Option<FailedShare>,
    now: FailedShare,
    can_tell: bool,
) -> Option<Change> {
    let Some(before) = before.filter(|before| before.failed > 0) else {
        return (now.failed > 0).then_some(Change::New);
    };
    let [(before_low, before_high), (now_low, now_high)] =
        [before, now].map(|share| interval(share.failed, share.trials).unwrap_or((0.0, 1.0)));
    Some(match now.failed {
        0 if !can_tell => Change::NotTold,
        0 if now_high >= before_low => Change::PerhapsFixed,
        0 => Change::Fixed,
        _ if now_low > before_high => Change::Worse,
        _ => Change::StillThere,
    })
}

impl Comparison {
    /// Whether anything got worse.
    pub fn is_worse(&self) -> bool {
        self.findings.iter().any(|one| one.change.is_worse())
    }

    /// Whether the scenario got worse.
    pub(super) fn is_worse_in(&self, scenario: &str) -> bool {
        let mut findings = self.findings.iter();
        findings.any(|one| one.scenario == scenario && one.change.is_worse())
    }

    /// What changed, in one sentence.
    pub(super) fn sentence(&self) -> String {
        let count = |change: Change| {
            let of_it = self.findings.iter().filter(|one| one.change == change);
            (change, of_it.count())
        };
        let always = [Change::Fixed, Change::StillThere, Change::New].map(count);
        let others = [Change::Worse, Change::PerhapsFixed, Change::NotTold].map(count);
        let others = others.into_iter().filter(|(_, count)| *count > 0);
        let counts = always.into_iter().chain(others);
        let counts = counts.map(|(change, count)| format!("{count} {}", change.as_ref()));
        let counts: Vec<_> = counts.collect();
        let worse = match self.is_worse() {
            true => "Something got worse",
            false => "Nothing got worse",
        };
        format!("{worse} than in the baseline: {}.", counts.join(", "))
    }
}

impl Change {
    /// It makes the exit code 1.
    pub(super) const fn is_worse(self) -> bool {
        matches!(self, Self::New | Self::Worse)
    }
}

impl Finding {
    /// The change, the scenario, the connection, the client, the failed trials before and now.
    pub(super) fn cells(&self) -> [String; 6] {
        let share = |share: Option<FailedShare>| match share {
            Some(FailedShare { failed, trials }) => format!("{failed} of {trials}"),
            None => "-".to_owned(),
        };
        [
            self.change.as_ref().to_owned(),
            self.scenario.clone(),
            self.connection.as_ref().to_owned(),
            self.client.as_ref().to_owned(),
            share(self.before),
            share(self.now),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_rate_within_its_interval_is_still_there_and_few_trials_prove_no_fix() {
        let share = |failed, trials| FailedShare { failed, trials };
        for (before, now, change_is) in [
            (None, share(0, 50), None),
            (Some(share(0, 50)), share(0, 50), None),
            (None, share(1, 50), Some(Change::New)),
            (Some(share(0, 50)), share(1, 50), Some(Change::New)),
            (Some(share(5, 50)), share(12, 50), Some(Change::StillThere)),
            (Some(share(50, 50)), share(1, 50), Some(Change::StillThere)),
            (Some(share(5, 50)), share(40, 50), Some(Change::Worse)),
            (Some(share(50, 50)), share(0, 50), Some(Change::Fixed)),
            (Some(share(1, 50)), share(0, 50), Some(Change::PerhapsFixed)),
            (Some(share(1, 1)), share(0, 1), Some(Change::PerhapsFixed)),
        ] {
            assert_eq!(change(before, now, true), change_is, "{before:?} {now:?}");
        }
        let silent = change(Some(share(50, 50)), share(0, 3), false);
        assert_eq!(silent, Some(Change::NotTold));
    }
}
