//! How fast requests follow each other, so that a live server is not overrun.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// A pace of requests; its clones share it. The default sets no pace.
#[derive(Debug, Clone, Default)]
pub struct RequestPace {
    /// Time for each request.
    each: Duration,
    /// When the next request may be sent.
    next: Arc<Mutex<Option<Instant>>>,
}

impl RequestPace {
    /// So many requests a second at most; more than zero.
    pub fn a_second(requests: f64) -> Self {
        Self {
            each: Duration::try_from_secs_f64(1.0 / requests).unwrap_or(Duration::ZERO),
            next: Arc::default(),
        }
    }

    /// The time that so many requests take at least.
    pub(super) fn time(&self, requests: u64) -> Duration {
        let requests = u32::try_from(requests).unwrap_or(u32::MAX);
        self.each.saturating_mul(requests)
    }

    /// Waits until so many requests may be sent.
    pub(super) async fn wait(&self, requests: usize) {
        if self.each.is_zero() {
            return;
        }
        let turn = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let turn = next.map_or(now, |next| next.max(now));
            *next = Some(turn + self.time(requests as u64));
            turn
        };
        sleep_until(turn).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn requests_come_no_faster_than_their_pace() {
        let pace = RequestPace::a_second(4.0);
        let clone = pace.clone();
        let begin = Instant::now();
        for (pace, requests, after_ms) in [(&pace, 1, 0), (&clone, 2, 250), (&pace, 1, 750)] {
            pace.wait(requests).await;
            assert_eq!(begin.elapsed().as_millis(), after_ms);
        }
        // A pause is not made up for.
        tokio::time::sleep(Duration::from_secs(9)).await;
        let begin = Instant::now();
        pace.wait(1).await;
        pace.wait(1).await;
        assert_eq!(begin.elapsed().as_millis(), 250);
        assert_eq!(RequestPace::default().time(1000), Duration::ZERO);
    }
}
