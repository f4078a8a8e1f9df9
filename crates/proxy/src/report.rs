use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use http::Method;
use rstlab_wire::{Call, Failure, Seen, errno_text};
use serde::Serialize;

use crate::trouble::Trouble;

/// What came of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The client was handed the whole response.
    Whole,
    /// The head was handed on, then the response ended too early.
    Truncated(Trouble),
    /// There was no response; the client got an answer of ours.
    NoResponse(Trouble),
    /// The client left, or its body was at fault: nothing of a response was lost on it.
    Client,
}

/// The counters of a running proxy.
#[derive(Debug, Default)]
pub struct Stats {
    requests: AtomicU64,
    resets: AtomicU64,
    harmless: AtomicU64,
    truncated: AtomicU64,
    no_response: AtomicU64,
    lost_bytes: AtomicU64,
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Requests forwarded.
    pub requests: u64,
    /// Upstream connections on which a RST was seen.
    pub resets: u64,
    /// Resets after which nothing was missing.
    pub harmless: u64,
    /// Responses whose end the upstream did not deliver, by a reset or otherwise.
    pub truncated: u64,
    /// Requests without any response of the upstream's.
    pub no_response: u64,
    /// Body bytes announced by `Content-Length` and not delivered, of truncated responses.
    pub lost_bytes: u64,
}

impl Stats {
    /// The counters now.
    pub fn summary(&self) -> Summary {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Summary {
            requests: get(&self.requests),
            resets: get(&self.resets),
            harmless: get(&self.harmless),
            truncated: get(&self.truncated),
            no_response: get(&self.no_response),
            lost_bytes: get(&self.lost_bytes),
        }
    }

    /// Counts a request; returns its number, from 1.
    pub(crate) fn request(&self) -> u64 {
        self.requests.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn count(&self, reset: bool, outcome: Outcome, lost_bytes: Option<u64>) {
        let add = |counter: &AtomicU64, more: u64| counter.fetch_add(more, Ordering::Relaxed);
        add(&self.resets, u64::from(reset));
        match outcome {
            Outcome::Whole | Outcome::Client => add(&self.harmless, u64::from(reset)),
            Outcome::NoResponse(_) => add(&self.no_response, 1),
            Outcome::Truncated(_) => {
                add(&self.truncated, 1);
                add(&self.lost_bytes, lost_bytes.unwrap_or(0))
            }
        };
    }
}

impl Summary {
    /// Writes the one line that ends the log.
    pub(crate) fn log(&self) {
        tracing::info!(
            requests = self.requests,
            resets = self.resets,
            harmless = self.harmless,
            truncated = self.truncated,
            no_response = self.no_response,
            lost_bytes = self.lost_bytes,
            "summary"
        );
    }
}

/// One request and its upstream connection, as the log tells it.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) request: u64,
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) upstream: String,
    pub(crate) seen: Seen,
    /// Body bytes of the response read so far.
    pub(crate) upstream_bytes: AtomicU64,
    /// Body bytes the response announced.
    pub(crate) expected_bytes: OnceLock<u64>,
}

impl Exchange {
    /// Counts how the exchange ended, and logs it if there is something to tell. Call it once.
    pub(crate) fn finish(&self, outcome: Outcome, stats: &Stats) {
        let reset = self.seen.reset();
        let lost_bytes = match outcome {
            Outcome::Truncated(_) => self.lost_bytes(),
            _ => None,
        };
        stats.count(reset.is_some(), outcome, lost_bytes);
        match (reset, outcome) {
            (Some(failure), _) => self.log_reset(failure, outcome, lost_bytes),
            (None, Outcome::Truncated(trouble) | Outcome::NoResponse(trouble)) => {
                self.log_loss(trouble, outcome, lost_bytes);
            }
            (None, Outcome::Whole | Outcome::Client) => {}
        }
    }

    fn lost_bytes(&self) -> Option<u64> {
        let expected = self.expected_bytes.get()?;
        Some(expected.saturating_sub(self.upstream_bytes.load(Ordering::Relaxed)))
    }

    /// The line people grep for.
    fn log_reset(&self, failure: Failure, outcome: Outcome, lost_bytes: Option<u64>) {
        let doing = match failure.call {
            Call::Recv => "reading",
            Call::Writev => "sending to",
            Call::SoError => "watching",
        };
        tracing::warn!(
            request = self.request,
            method = %self.method,
            path = self.path,
            upstream = %self.upstream,
            phase = %failure.phase,
            upstream_bytes = self.upstream_bytes.load(Ordering::Relaxed),
            expected_bytes = self.expected_bytes.get(),
            lost_bytes,
            harm = %harm(outcome),
            "{failure} while {doing} upstream"
        );
    }

    /// A response that is missing without any reset.
    fn log_loss(&self, trouble: Trouble, outcome: Outcome, lost_bytes: Option<u64>) {
        tracing::warn!(
            request = self.request,
            method = %self.method,
            path = self.path,
            upstream = %self.upstream,
            phase = %self.seen.phase(),
            upstream_bytes = self.upstream_bytes.load(Ordering::Relaxed),
            expected_bytes = self.expected_bytes.get(),
            lost_bytes,
            harm = %harm(outcome),
            "{}",
            trouble.text()
        );
    }

    /// A connection that was never made; counts it too.
    pub(crate) fn not_connected(&self, error: &io::Error, trouble: Trouble, stats: &Stats) {
        let outcome = Outcome::NoResponse(trouble);
        stats.count(false, outcome, None);
        let what = match error.raw_os_error() {
            Some(errno) => format!("connect() failed ({})", errno_text(errno)),
            // The name did not resolve.
            None => error.to_string(),
        };
        tracing::warn!(
            request = self.request,
            method = %self.method,
            path = self.path,
            upstream = %self.upstream,
            harm = %harm(outcome),
            "{what} while connecting to upstream"
        );
    }
}

fn harm(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Whole | Outcome::Client => "none",
        Outcome::Truncated(_) => "truncated",
        Outcome::NoResponse(_) => "no-response",
    }
}

#[cfg(test)]
pub(crate) fn exchange_for_tests(received: u64, expected: Option<u64>) -> Exchange {
    let exchange = Exchange {
        request: 1,
        method: Method::POST,
        path: "/".to_owned(),
        upstream: "u:1".to_owned(),
        seen: Seen::default(),
        upstream_bytes: AtomicU64::new(received),
        expected_bytes: OnceLock::new(),
    };
    if let Some(expected) = expected {
        exchange.expected_bytes.get_or_init(|| expected);
    }
    exchange
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resets_and_losses_are_counted_apart() {
        let stats = Stats::default();
        let reset = || io::Error::from_raw_os_error(104);

        let harmless = exchange_for_tests(600, Some(600));
        harmless.seen.failed(Call::Recv, &reset());
        harmless.finish(Outcome::Whole, &stats);

        let cut = exchange_for_tests(200, Some(600));
        cut.seen.failed(Call::Recv, &reset());
        cut.finish(Outcome::Truncated(Trouble::Reset), &stats);

        let cut_by_fin = exchange_for_tests(100, Some(600));
        cut_by_fin.finish(Outcome::Truncated(Trouble::Closed), &stats);

        let missing = exchange_for_tests(0, None);
        missing.finish(Outcome::NoResponse(Trouble::Closed), &stats);
        exchange_for_tests(0, None).finish(Outcome::Client, &stats);

        assert_eq!(
            stats.summary(),
            Summary {
                requests: 0,
                resets: 2,
                harmless: 1,
                truncated: 2,
                no_response: 1,
                lost_bytes: 900,
            }
        );
    }
}
