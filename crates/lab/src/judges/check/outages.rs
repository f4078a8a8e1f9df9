//! Times in which a server that was there refused connections: somebody may have restarted it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;
use tokio::time::Instant;

/// Refusals so close to each other are one outage.
const APART: Duration = Duration::from_millis(200);

/// A response that is lost so shortly before a refusal was lost because the server ended.
pub(super) const BEFORE: Duration = Duration::from_secs(1);

/// Time between two attempts to connect to a server that refuses connections.
pub(super) const RETRY_EVERY: Duration = Duration::from_millis(20);

/// Times in which the server refused connections, and was there again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Outages {
    /// How many there were.
    pub count: u64,
    /// How long they took in all.
    pub milliseconds: u64,
    /// Trials that lost their response around them. They say nothing about how the server closes, and are not counted.
    pub trials_left_out: u64,
}

/// First and last refusal of each outage so far. An outage is at least [`APART`] from the next: there are not many.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<Vec<(Instant, Instant)>>);

impl Refusals {
    /// Notes that a connection was refused.
    pub(super) fn note(&self, now: Instant) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match all.last_mut() {
            Some((_, last)) if now <= *last + APART => *last = now.max(*last),
            _ => all.push((now, now)),
        }
    }

    /// Whether the server was away during a trial, or shortly after.
    pub(super) fn are_around(&self, begun: Instant, ended: Instant) -> bool {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = all.iter();
        all.any(|(first, last)| begun <= *last && ended + BEFORE >= *first)
    }

    /// The outages for the report.
    pub(super) fn report(&self, trials_left_out: u64) -> Outages {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let took: Duration = all.iter().map(|(first, last)| *last - *first).sum();
        Outages {
            count: all.len() as u64,
            milliseconds: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            trials_left_out,
        }
    }
}

impl Outages {
    /// The outages in a sentence; `None` if there were none.
    pub(super) fn sentence(&self) -> Option<String> {
        let times = match self.count {
            0 => return None,
            1 => "once".to_owned(),
            more => format!("{more} times"),
        };
        let left_out = match self.trials_left_out {
            0 => "No trial was lost with it".to_owned(),
            1 => "1 trial that ended then is left out".to_owned(),
            more => format!("{more} trials that ended then are left out"),
        };
        let seconds = Duration::from_millis(self.milliseconds).as_secs_f64();
        Some(format!(
            "The server refused connections {times}, for {seconds:.1} s in all: was it restarted? {left_out}."
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_lost_shortly_before_a_refusal_is_left_out() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let refusals = Refusals::default();
        for millis in [2000, 2020, 2190, 2300, 5000] {
            refusals.note(at(millis));
        }
        let outages = refusals.report(3);
        assert_eq!((outages.count, outages.milliseconds), (2, 300));
        for (begun, ended, around) in [
            (0, 900, false),
            (0, 1000, true),
            (2100, 2200, true),
            (2301, 2400, false),
            (2301, 4100, true),
            (5001, 9000, false),
        ] {
            assert_eq!(refusals.are_around(at(begun), at(ended)), around, "{begun}");
        }
        assert_eq!(
            outages.sentence().unwrap(),
            "The server refused connections 2 times, for 0.3 s in all: was it restarted? 3 trials that ended then are \
             left out."
        );
    }
}
