//! Requests that were answered with 401 or 429: if most are, there is nothing to check.

use super::cannot_check::CannotCheck;
use super::plan::CheckPlan;
use super::trial::{Trial, is_turned_away};

/// The check ends early if so many requests, and more than half, were turned away.
pub(super) const MIN_TURNED_AWAY: u64 = 20;

/// Requests that were turned away, of all that were answered.
#[derive(Debug, Default)]
pub(super) struct TurnedAway {
    answered: u64,
    turned_away: u64,
    /// The status of the last one.
    status: u16,
}

impl TurnedAway {
    pub(super) fn count(&mut self, trial: &Trial) {
        let Some(status) = trial.status else { return };
        self.answered += 1;
        if trial.is_other_status && is_turned_away(status) {
            self.turned_away += 1;
            self.status = status;
        }
    }

    /// # Errors
    /// At least `min` requests, and more than half of them, were turned away.
    pub(super) fn verdict(&self, plan: &CheckPlan, min: u64) -> Result<(), CannotCheck> {
        let is_most = self.turned_away >= min && self.turned_away * 2 > self.answered;
        match is_most {
            true => Err(CannotCheck::TurnedAway {
                address: plan.target.address.clone(),
                status: self.status,
                turned_away: self.turned_away,
                answered: self.answered,
            }),
            false => Ok(()),
        }
    }
}
