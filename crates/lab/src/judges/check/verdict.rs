//! What trials say about a server: the verdict on them, and the interval of the share of lost responses.

use schemars::JsonSchema;
use serde::Serialize;
use strum::{AsRefStr, VariantArray};

use super::counts::Counts;
use super::trial::TrialOutcome;

/// What trials say about a server, from the best to the worst.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    JsonSchema,
    AsRefStr,
    VariantArray,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "lowercase")]
pub enum CheckVerdict {
    /// Every response came whole, and no connection was reset.
    Pass,
    /// Connections were reset after whole responses, which the resets could have cut and did not.
    Harmless,
    /// Nothing was lost, but the resets could not have cut anything, a trial timed out or was answered with 401 or 429 instead,
    /// or a case was not tried.
    #[strum(serialize = "can't tell")]
    CannotTell,
    /// At least one response, or its end, was lost.
    Loses,
}

impl CheckVerdict {
    /// The worst of several; of none, that nothing can be told.
    pub(super) fn worst(verdicts: impl Iterator<Item = Self>) -> Self {
        verdicts.max().unwrap_or(Self::CannotTell)
    }

    /// The verdict on trials of one kind. On a unix socket the bytes written are in the client's queue: no reset takes
    /// them.
    pub(super) fn of(counts: &Counts, unix: bool) -> Self {
        let resets = counts.outcomes.of(TrialOutcome::WholeThenReset);
        if counts.outcomes.lost() > 0 {
            Self::Loses
        } else if counts.trials == 0
            || counts.turned_away > 0
            || counts.outcomes.of(TrialOutcome::Timeout) > 0
        {
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
    // Rounding must not turn 0 of 50 into more than 0.
    Some((
        if count == 0 { 0.0 } else { low },
        if count == trials { 1.0 } else { high },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(outcomes: &[(TrialOutcome, u64)], fits: u64) -> Counts {
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
        let fin = (TrialOutcome::WholeThenFin, 9);
        let reset = (TrialOutcome::WholeThenReset, 5);
        for (outcomes, fits, verdict) in [
            (&[fin][..], 0, CheckVerdict::Pass),
            (&[fin, reset], 0, CheckVerdict::Harmless),
            (&[fin, reset], 4, CheckVerdict::Harmless),
            (&[fin, reset], 5, CheckVerdict::CannotTell),
            (
                &[fin, (TrialOutcome::Timeout, 1)],
                0,
                CheckVerdict::CannotTell,
            ),
            (&[], 0, CheckVerdict::CannotTell),
        ] {
            assert_eq!(
                CheckVerdict::of(&counts(outcomes, fits), false),
                verdict,
                "{outcomes:?}"
            );
        }
        assert_eq!(
            CheckVerdict::of(&counts(&[reset], 5), true),
            CheckVerdict::Harmless
        );
        for lost in TrialOutcome::VARIANTS.iter().filter(|one| one.is_lost()) {
            let counts = counts(&[fin, reset, (TrialOutcome::Timeout, 1), (*lost, 1)], 5);
            assert_eq!(
                CheckVerdict::of(&counts, false),
                CheckVerdict::Loses,
                "{lost:?}"
            );
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
