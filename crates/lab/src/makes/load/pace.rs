//! When the requests of a load start, and when they end.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{Extent, LoadPlan, MAX_TIME};

/// Gives all connections together the moments at which their requests start.
#[derive(Debug)]
pub(super) struct Pace {
    start: Instant,
    extent: Extent,
    /// Requests a second.
    rate: Option<f64>,
    stop: CancellationToken,
    handed_out: AtomicU64,
    cut_short: AtomicBool,
    /// Requests of the warm-up, the first ones.
    warm_up: u64,
    /// Cancelled when those are done, or when the run ends before.
    warm: CancellationToken,
}

impl Pace {
    pub(super) fn new(plan: &LoadPlan, stop: CancellationToken) -> Self {
        Self {
            start: Instant::now(),
            extent: match plan.extent {
                Extent::Requests(requests) => {
                    Extent::Requests(requests.saturating_add(plan.warm_up))
                }
                Extent::Duration(time) => Extent::Duration(time),
            },
            rate: plan.rate,
            stop,
            handed_out: AtomicU64::new(0),
            cut_short: AtomicBool::new(false),
            warm_up: plan.warm_up,
            warm: CancellationToken::new(),
        }
    }

    /// Lets the requests after the warm-up start.
    pub(super) fn end_warm_up(&self) {
        self.warm.cancel();
    }

    /// Waits until the next request may start, and returns the moment from which its latency counts; `None` is the end.
    ///
    /// With a rate, a late request counts from the moment at which it was due: a slow server, which keeps every
    /// connection busy, must not make its own latency look better.
    pub(super) async fn next(&self) -> Option<Instant> {
        let number = self.handed_out.fetch_add(1, Ordering::Relaxed);
        let limit = match self.extent {
            Extent::Requests(most) if number >= most => return None,
            Extent::Requests(_) => MAX_TIME,
            Extent::Duration(time) => time.min(MAX_TIME),
        };
        if self.warm_up > 0 && number >= self.warm_up {
            tokio::select! {
                () = self.warm.cancelled() => {}
                () = self.stop.cancelled() => {}
            }
        }
        let now = Instant::now();
        let after = match self.rate {
            Some(rate) => Duration::try_from_secs_f64(number as f64 / rate).unwrap_or(MAX_TIME),
            None => now - self.start,
        };
        // With a rate the next request may be due only after the end, and a slow server may make it late.
        let time_is_up = after.max(now - self.start) >= limit;
        if time_is_up || self.stop.is_cancelled() {
            if !(time_is_up && matches!(self.extent, Extent::Duration(_))) {
                self.cut();
            }
            // A request of the warm-up may be missing now.
            self.end_warm_up();
            return None;
        }
        let due = self.start + after;
        if due <= now {
            return Some(due);
        }
        tokio::select! {
            () = sleep_until(due) => Some(Instant::now()),
            () = self.stop.cancelled() => {
                self.cut();
                None
            }
        }
    }

    /// When the run began.
    pub(super) fn start(&self) -> Instant {
        self.start
    }

    /// Cancelled when the run is to end before its time.
    pub(super) fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Notes that the run ends before the plan is done.
    pub(super) fn cut(&self) {
        self.cut_short.store(true, Ordering::Relaxed);
    }

    /// Whether the run ended before the plan was done.
    pub(super) fn was_cut(&self) -> bool {
        self.cut_short.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(extent: Extent, rate: Option<f64>) -> Pace {
        let target = std::net::SocketAddr::from(([127, 0, 0, 1], 80)).into();
        let plan = LoadPlan {
            extent,
            rate,
            ..LoadPlan::new(target)
        };
        Pace::new(&plan, CancellationToken::new())
    }

    #[tokio::test(start_paused = true)]
    async fn a_number_of_requests_is_handed_out_once() {
        let pace = pace(Extent::Requests(3), None);
        for _ in 0..3 {
            assert_eq!(pace.next().await, Some(pace.start()));
        }
        assert_eq!(pace.next().await, None);
        assert!(!pace.was_cut());
    }

    #[tokio::test(start_paused = true)]
    async fn a_duration_ends_the_run() {
        let pace = pace(Extent::Duration(Duration::from_secs(2)), None);
        assert!(pace.next().await.is_some());
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(pace.next().await, None);
        assert!(!pace.was_cut());
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_lags_behind_the_rate_does_not_prolong_the_run() {
        let pace = pace(Extent::Duration(Duration::from_secs(2)), Some(1000.0));
        assert!(pace.next().await.is_some());
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(pace.next().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_spaces_requests_and_a_late_one_counts_from_when_it_was_due() {
        let pace = pace(Extent::Requests(10), Some(100.0));
        let after = |ms| Some(pace.start() + Duration::from_millis(ms));
        assert_eq!(pace.next().await, after(0));
        assert_eq!(pace.next().await, after(10));
        tokio::time::advance(Duration::from_millis(500)).await;
        assert_eq!(pace.next().await, after(20));
        assert_eq!(pace.next().await, after(30));
    }

    #[tokio::test(start_paused = true)]
    async fn no_run_lasts_for_more_than_an_hour() {
        let pace = pace(Extent::Requests(u64::MAX), Some(0.001));
        assert!(pace.next().await.is_some());
        while pace.next().await.is_some() {}
        assert_eq!(pace.start().elapsed(), Duration::from_secs(3000));
        assert!(pace.was_cut());
    }

    #[tokio::test(start_paused = true)]
    async fn the_order_to_stop_ends_the_wait_for_a_request() {
        let pace = pace(Extent::Requests(10), Some(0.001));
        assert!(pace.next().await.is_some());
        pace.stop().cancel();
        assert_eq!(pace.next().await, None);
        assert!(pace.was_cut());
    }
}
