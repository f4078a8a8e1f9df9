use std::io;
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::Method;
use rstlab_cli::grouped;
use rstlab_wire::{Call, Seen, errno_text};
use rstlab_witness::{Cause, Known, Side, Verdict, Watch};
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
    /// The connection had carried a request before.
    pub(crate) reused: bool,
    pub(crate) seen: Seen,
    /// Watched since before the connection was made, or taken.
    pub(crate) watch: Watch,
    /// The connection's ends: theirs, ours.
    pub(crate) ends: OnceLock<(SocketAddr, SocketAddr)>,
    /// When the client's part in it was over, on `CLOCK_MONOTONIC`.
    pub(crate) ended: OnceLock<Duration>,
    /// Body bytes of the response read so far.
    pub(crate) upstream_bytes: AtomicU64,
    /// Body bytes the response announced.
    pub(crate) expected_bytes: OnceLock<u64>,
}

impl Exchange {
    /// Counts how the exchange ended; returns whether there is something to tell. Call it once.
    pub(crate) fn count(&self, outcome: Outcome, stats: &Stats) -> bool {
        let reset = self.seen.reset().is_some();
        stats.count(reset, outcome, self.lost_bytes(outcome));
        reset || matches!(outcome, Outcome::Truncated(_) | Outcome::NoResponse(_))
    }

    /// How much of the body came.
    pub(crate) fn progress(&self) -> String {
        let came = self.upstream_bytes.load(Ordering::Relaxed);
        match self.expected_bytes.get() {
            Some(expected) => format!("{} of {} bytes", grouped(came), grouped(*expected)),
            None => format!("{} bytes", grouped(came)),
        }
    }

    fn lost_bytes(&self, outcome: Outcome) -> Option<u64> {
        let expected = self.expected_bytes.get()?;
        matches!(outcome, Outcome::Truncated(_))
            .then(|| expected.saturating_sub(self.upstream_bytes.load(Ordering::Relaxed)))
    }

    /// The line people grep for.
    pub(crate) fn log(&self, outcome: Outcome, verdict: Option<&Verdict>) {
        let reset = self.seen.reset();
        let what = match (reset, outcome) {
            (Some(failure), _) => {
                let doing = match failure.call {
                    Call::Recv => "reading",
                    Call::Writev => "sending to",
                    Call::SoError => "watching",
                };
                format!("{failure} while {doing} upstream")
            }
            // A response that is missing without any reset.
            (None, Outcome::Truncated(trouble) | Outcome::NoResponse(trouble)) => {
                trouble.text().to_owned()
            }
            (None, Outcome::Whole | Outcome::Client) => return,
        };
        tracing::warn!(
            request = self.request,
            method = %self.method,
            path = self.path,
            upstream = %self.upstream,
            phase = %reset.map_or_else(|| self.seen.phase(), |failure| failure.phase),
            reused = self.reused.then_some(true),
            upstream_bytes = self.upstream_bytes.load(Ordering::Relaxed),
            expected_bytes = self.expected_bytes.get(),
            lost_bytes = self.lost_bytes(outcome),
            harm = %outcome.harm(),
            cause = verdict.map(|it| display(it.cause)),
            known = verdict.map(|it| display(it.known)),
            sent_by = verdict.and_then(|it| it.sent_by).map(name_of).map(display),
            reason = verdict.and_then(|it| it.reason.as_ref()).map(display),
            unread_bytes = verdict.and_then(|it| it.unread_bytes),
            disagreement = verdict.and_then(|it| it.disagreement.as_deref()),
            "{what}"
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
        // The answer to a SYN was a RST; which one, the kernel could only say of a known port.
        let refused = error.kind() == io::ErrorKind::ConnectionRefused;
        tracing::warn!(
            request = self.request,
            method = %self.method,
            path = self.path,
            upstream = %self.upstream,
            harm = %outcome.harm(),
            cause = refused.then_some(display(Cause::Refused)),
            known = refused.then_some(display(Known::Inferred)),
            "{what} while connecting to upstream"
        );
    }
}

/// The ends of an upstream connection, as people who read a proxy's log call them.
fn name_of(side: Side) -> &'static str {
    match side {
        Side::Client => "proxy",
        Side::Server => "upstream",
    }
}

impl Outcome {
    /// What the client got, as a record has it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Outcome::Whole => "whole",
            Outcome::Truncated(_) => "truncated",
            Outcome::NoResponse(_) => "no-response",
            Outcome::Client => "client-left",
        }
    }

    /// What it means for the client.
    pub(crate) fn harm(self) -> &'static str {
        match self {
            Outcome::Whole | Outcome::Client => "none",
            Outcome::Truncated(_) => "truncated",
            Outcome::NoResponse(_) => "no-response",
        }
    }
}

#[cfg(test)]
pub(crate) fn exchange_for_tests(received: u64, expected: Option<u64>) -> Exchange {
    let exchange = Exchange {
        request: 1,
        method: Method::POST,
        path: "/".to_owned(),
        upstream: "u:1".to_owned(),
        reused: false,
        seen: Seen::default(),
        watch: rstlab_witness::Witness::default().watch(),
        ends: OnceLock::new(),
        ended: OnceLock::new(),
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
        harmless.count(Outcome::Whole, &stats);

        let cut = exchange_for_tests(200, Some(600));
        cut.seen.failed(Call::Recv, &reset());
        cut.count(Outcome::Truncated(Trouble::Reset), &stats);

        let cut_by_fin = exchange_for_tests(100, Some(600));
        cut_by_fin.count(Outcome::Truncated(Trouble::Closed), &stats);

        let missing = exchange_for_tests(0, None);
        missing.count(Outcome::NoResponse(Trouble::Closed), &stats);
        exchange_for_tests(0, None).count(Outcome::Client, &stats);

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
