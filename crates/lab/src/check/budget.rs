use std::time::Duration;

use tokio::time::Instant;

use super::Plan;

/// Time in which trials begin, for each 50 of a scenario.
const TIME: Duration = Duration::from_secs(17);

/// The same, in limits of one trial: a plain request may take one, and so may the next.
const TIMEOUTS: u32 = 3;

/// For the trials that run when that is over.
const REST: Duration = Duration::from_millis(1500);

/// The time of a check, and which part of it is for what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    start: Instant,
    time: Duration,
}

impl Budget {
    /// From now on.
    pub(super) fn of(plan: &Plan) -> Self {
        let fifties = u32::try_from(plan.trials.div_ceil(50)).unwrap_or(u32::MAX);
        let time = TIME.max(plan.timeout.saturating_mul(TIMEOUTS));
        Self::new(time.saturating_mul(fifties.max(1)))
    }

    pub(super) fn new(time: Duration) -> Self {
        // A year is for ever, and a sum of instants that does not overflow.
        let time = time.min(Duration::from_secs(365 * 24 * 60 * 60));
        let start = Instant::now();
        Self { start, time }
    }

    pub(super) fn spent(&self) -> Duration {
        self.start.elapsed()
    }

    /// All of it, for people.
    pub(super) fn all(&self) -> Duration {
        self.time + REST
    }

    /// A search for how far the server reads on that begins now ends then: the rest is for the trials.
    pub(super) fn search_end(&self) -> Instant {
        (Instant::now() + self.time / 3).min(self.half())
    }

    /// What comes before the trials has ended then.
    pub(super) fn half(&self) -> Instant {
        self.start + self.time / 2
    }

    /// No trial begins later.
    pub(super) fn last_begin(&self) -> Instant {
        self.start + self.time
    }

    /// Nothing goes on longer.
    pub(super) fn end(&self) -> Instant {
        self.start + self.all()
    }
}
