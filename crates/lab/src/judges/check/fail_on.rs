//! What a check fails on.

use super::report::{CheckReport, ScenarioReport};
use super::severity::Severity;
use super::trial::TrialOutcome;

/// What a check fails on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FailOn {
    /// A lost response that is so bad, or worse.
    Lost(Severity),
    /// A lost response, or a connection that was reset.
    Reset,
}

impl FailOn {
    /// The values of `--fail-on`.
    pub(super) const CHOICES: [(&str, Self); 5] = [
        ("critical", Self::Lost(Severity::Critical)),
        ("high", Self::Lost(Severity::High)),
        ("medium", Self::Lost(Severity::Medium)),
        ("low", Self::Lost(Severity::Low)),
        ("reset", Self::Reset),
    ];

    /// Whether a scenario fails: with a baseline, only one that got worse does.
    pub(super) fn fails(self, report: &CheckReport, scenario: &ScenarioReport) -> bool {
        let baseline = report.baseline.as_ref();
        let may_fail = baseline.is_none_or(|baseline| baseline.is_worse_in(scenario.name));
        may_fail
            && match self {
                Self::Lost(least) => scenario.severity.is_some_and(|worst| worst >= least),
                Self::Reset => scenario.severity.is_some() || scenario.resets() > 0,
            }
    }

    /// Whether a trial that ended so is a failure, as far as a baseline is concerned.
    pub(super) const fn is_failure(self, outcome: TrialOutcome) -> bool {
        outcome.is_lost() || (matches!(self, Self::Reset) && outcome.is_reset())
    }
}
