use serde::Serialize;

use super::outcome::Outcome;
use super::report::{CaseReport, Counts, ScenarioReport};

/// What trials say about a server. The worse is the greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Every response came whole, and no reset with it.
    Pass,
    /// Resets came, after responses that they could have cut, and did not.
    Harmless,
    /// Nothing was lost, and nothing could have been; or not every trial was made, or came to an end.
    CannotTell,
    /// Responses were lost, or their ends.
    Loses,
}

impl Verdict {
    /// Its name in reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Harmless => "harmless",
            Self::CannotTell => "can't tell",
            Self::Loses => "loses",
        }
    }

    /// The worst of the cases; one that was not tried tells nothing.
    pub(super) fn of_all(cases: &[CaseReport]) -> Self {
        let worst = cases.iter().map(|case| case.verdict).max();
        worst.unwrap_or(Self::CannotTell)
    }

    /// The verdict on trials of one kind. On a unix socket what was written lies with us: no reset takes it.
    pub(super) fn of(counts: &Counts, unix: bool) -> Self {
        let resets = counts.outcomes.of(Outcome::WholeThenReset);
        if counts.outcomes.lost() > 0 {
            Self::Loses
        } else if counts.trials == 0 || counts.outcomes.of(Outcome::Timeout) > 0 {
            Self::CannotTell
        } else if resets == 0 {
            Self::Pass
        } else if counts.fits == resets && !unix {
            Self::CannotTell
        } else {
            Self::Harmless
        }
    }
}

/// What a check fails on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FailOn {
    /// A response, or its end, was lost.
    Truncated,
    /// Any reset, too.
    Reset,
}

impl FailOn {
    /// Whether a scenario fails.
    pub(super) fn fails(self, scenario: &ScenarioReport) -> bool {
        scenario.verdict == Verdict::Loses || (self == Self::Reset && scenario.resets() > 0)
    }
}

/// Wilson's score interval for a share, at 95 %.
pub(super) fn interval(count: u64, trials: u64) -> Option<(f64, f64)> {
    /// The 97.5 % point of the normal distribution.
    const Z: f64 = 1.959_963_985;
    if trials == 0 {
        return None;
    }
    let (share, n) = (count as f64 / trials as f64, trials as f64);
    let z2 = Z * Z;
    let middle = share + z2 / (2.0 * n);
    let half = Z * (share * (1.0 - share) / n + z2 / (4.0 * n * n)).sqrt();
    let scale = 1.0 + z2 / n;
    let low = ((middle - half) / scale).clamp(0.0, 1.0);
    let high = ((middle + half) / scale).clamp(0.0, 1.0);
    // Rounding must not make nought of 50 more than nought.
    Some((
        if count == 0 { 0.0 } else { low },
        if count == trials { 1.0 } else { high },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(outcomes: &[(Outcome, u64)], fits: u64) -> Counts {
        let mut counts = Counts {
            fits,
            ..Counts::default()
        };
        for (outcome, count) in outcomes {
            counts.trials += count;
            for _ in 0..*count {
                counts.outcomes.add(*outcome);
            }
        }
        counts
    }

    #[test]
    fn one_loss_is_a_loss_and_a_reset_that_could_not_harm_tells_nothing() {
        let fin = (Outcome::WholeThenFin, 9);
        let reset = (Outcome::WholeThenReset, 5);
        for (outcomes, fits, verdict) in [
            (&[fin][..], 0, Verdict::Pass),
            (&[fin, reset], 0, Verdict::Harmless),
            (&[fin, reset], 4, Verdict::Harmless),
            (&[fin, reset], 5, Verdict::CannotTell),
            (&[fin, (Outcome::Timeout, 1)], 0, Verdict::CannotTell),
            (&[], 0, Verdict::CannotTell),
        ] {
            assert_eq!(
                Verdict::of(&counts(outcomes, fits), false),
                verdict,
                "{outcomes:?}"
            );
        }
        assert_eq!(Verdict::of(&counts(&[reset], 5), true), Verdict::Harmless);
        for lost in Outcome::ALL.into_iter().filter(|one| one.is_lost()) {
            let counts = counts(&[fin, reset, (Outcome::Timeout, 1), (lost, 1)], 5);
            assert_eq!(Verdict::of(&counts, false), Verdict::Loses, "{lost:?}");
        }
    }

    #[test]
    fn wilson_s_interval() {
        // The values of R's binom::binom.wilson.
        let close = |(low, high): (f64, f64), expected: (f64, f64)| {
            assert!((low - expected.0).abs() < 5e-4, "{low} {expected:?}");
            assert!((high - expected.1).abs() < 5e-4, "{high} {expected:?}");
        };
        close(interval(0, 50).unwrap(), (0.0, 0.0713));
        close(interval(50, 50).unwrap(), (0.9287, 1.0));
        close(interval(5, 50).unwrap(), (0.0435, 0.2136));
        assert_eq!(interval(0, 0), None);
    }
}
