//! The time of a check, shared out among its parts.

use std::time::Duration;

use tokio::time::Instant;

use super::plan::CheckPlan;

/// Time in which trials begin, for each 50 of a scenario.
const TIME: Duration = Duration::from_secs(17);

/// The least time, in limits of one trial: a plain request may take one limit, and so may the next.
const TIMEOUTS: u32 = 3;

/// Time for the trials that still run after that.
const REST: Duration = Duration::from_millis(1500);

/// The time of a check and its parts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    start: Instant,
    time: Duration,
}

impl Budget {
    /// The budget of a check with so many requests that begins now.
    pub(super) fn of(plan: &CheckPlan, requests: u64) -> Self {
        let fifties = u32::try_from(plan.trials.div_ceil(50)).unwrap_or(u32::MAX);
        let time = TIME.max(plan.timeout.saturating_mul(TIMEOUTS));
        let time = time.saturating_mul(fifties.max(1));
        let time = time.saturating_add(plan.pace.time(requests));
        let most = plan.max_time.map(|all| all.saturating_sub(REST));
        Self::new(most.map_or(time, |most| most.min(time)))
    }

    pub(super) fn new(time: Duration) -> Self {
        // The limit of a year keeps sums of instants from overflowing.
        let time = time.min(Duration::from_secs(365 * 24 * 60 * 60));
        let start = Instant::now();
        Self { start, time }
    }

    pub(super) fn spent(&self) -> Duration {
        self.start.elapsed()
    }

    /// The whole time, as messages state it.
    pub(super) fn all(&self) -> Duration {
        self.time + REST
    }

    /// The end of a search for how far the server reads on that begins now: the rest is for the trials.
    pub(super) fn search_end(&self) -> Instant {
        (Instant::now() + self.time / 3).min(self.half())
    }

    /// The end of everything that comes before the trials.
    pub(super) fn half(&self) -> Instant {
        self.start + self.time / 2
    }

    /// No trial begins later.
    pub(super) fn last_begin(&self) -> Instant {
        self.start + self.time
    }

    /// The end of everything.
    pub(super) fn end(&self) -> Instant {
        self.start + self.all()
    }
}
