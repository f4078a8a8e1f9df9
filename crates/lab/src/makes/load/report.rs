//! The report of a load: the outcomes of its requests in numbers.

use hdrhistogram::Histogram;
use http::StatusCode;
use rstlab_wire::{Failure, Phase};
use schemars::JsonSchema;
use serde::Serialize;
use tokio::time::Instant;

use super::MAX_TIME;
use super::outcome::{Cut, RequestOutcome, Sample};
use crate::shared::errno;
use crate::shared::tally::tally;

/// What became of a run's requests.
///
/// `requests` is the sum of `whole`, `truncated`, `no_response`, `refused`, `timeouts` and `bad_responses`:
/// each request is exactly one of these, and `whole` is the sum of the three counts of statuses. Resets are
/// counted apart: not every reset loses something, and not every loss shows as a reset.
#[derive(Debug, Clone, Default, PartialEq, Serialize, JsonSchema)]
#[schemars(title = "rstlab load --json")]
pub struct LoadReport {
    /// Requests with an outcome.
    pub requests: u64,
    /// Responses that came to their end.
    ///
    /// A response without a length ends with the stream. It counts as whole after a FIN, for nobody can tell.
    pub whole: u64,
    /// Whole responses with a status 200 to 399.
    pub status_2xx_3xx: u64,
    /// Whole responses with a status 400 to 499.
    pub status_4xx: u64,
    /// Whole responses with a status 500 to 599.
    pub status_5xx: u64,
    /// Responses whose head came, but not their whole body.
    pub truncated: Cuts,
    /// Connections that ended before the response's head was complete.
    pub no_response: Cuts,
    /// Requests without a connection, whatever the error of `connect(2)`.
    pub refused: u64,
    /// Requests given up at the time limit.
    pub timeouts: u64,
    /// Answers that were not HTTP.
    pub bad_responses: u64,
    /// Resets seen, harmful or not.
    pub resets: u64,
    /// Resets that cost nobody a response.
    pub harmless_resets: u64,
    /// Requests sent a second time, because the kept connection had ended before it reached the server.
    pub sent_again: u64,
    /// Bytes of response bodies that came.
    pub body_bytes: u64,
    /// Bytes of response bodies that were announced (`Content-Length`) and did not come.
    pub lost_bytes: u64,
    /// From the start of the first request to the end of the last.
    #[schemars(range(min = 0))]
    pub seconds: f64,
    /// The run ended before the plan was done: it was told to, or an hour was up.
    pub interrupted: bool,
    /// The latency of whole responses; null if there was none.
    pub latency_us: Option<Latency>,
    /// Everything that failed, the most frequent first.
    pub failures: Vec<LoadFailure>,
    /// The protocol that the server speaks in place of HTTP/1.1, if it is known; then the run has ended.
    #[serde(skip)]
    pub other_protocol: Option<&'static str>,
}

/// Responses that were cut, by what cut them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Cuts {
    /// A RST: `ECONNRESET`.
    pub by_reset: u64,
    /// An early end of the stream.
    pub by_eof: u64,
    /// Another error of the kernel.
    pub by_error: u64,
}

impl Cuts {
    /// The sum.
    pub fn total(&self) -> u64 {
        self.by_reset + self.by_eof + self.by_error
    }

    fn add(&mut self, cut: Cut) {
        *match cut {
            Cut::Reset => &mut self.by_reset,
            Cut::Eof => &mut self.by_eof,
            Cut::Error => &mut self.by_error,
        } += 1;
    }
}

/// Times in microseconds, to three digits, from a request's start (connecting included) to the last byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Latency {
    /// Half of the responses took at most this long.
    pub p50: u64,
    /// 90 of 100 responses took at most this long.
    pub p90: u64,
    /// 99 of 100 responses took at most this long.
    pub p99: u64,
    /// 999 of 1,000 responses took at most this long.
    pub p999: u64,
    /// The slowest response.
    pub max: u64,
}

/// Failures that are alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct LoadFailure {
    /// What it did to the request.
    pub outcome: FailedAs,
    /// The system call that failed first, if one did.
    pub call: Option<String>,
    /// The error number of that call.
    pub errno: Option<i32>,
    /// The error's text; without a failed call, what happened instead.
    pub error: String,
    /// How far the exchange had come.
    #[schemars(extend("enum" = [
        "connecting", "sending-head", "sending-body", "waiting", "reading-head", "reading-body", "after-response"
    ]))]
    pub phase: String,
    /// How often it happened.
    #[schemars(range(min = 1))]
    pub count: u64,
    /// How often it happened on a connection that had carried a whole exchange before.
    pub on_kept_connection: u64,
    /// Bytes that were lost by it, as far as the length was announced.
    pub lost_bytes: u64,
}

/// What a failure did to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema, strum::Display)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum FailedAs {
    /// The response was cut.
    Truncated,
    /// No response came.
    NoResponse,
    /// There was no connection.
    Refused,
    /// The time limit came first.
    Timeout,
    /// The answer was not HTTP.
    BadResponse,
    /// Nothing: it was a reset after a whole response.
    Harmless,
}

impl LoadReport {
    /// Whether every request got a whole response and the plan was carried out.
    pub fn all_whole(&self) -> bool {
        self.requests > 0 && self.whole == self.requests && !self.interrupted
    }
}

/// Counts while a run goes on.
pub(super) struct LoadTally {
    report: LoadReport,
    latency: Histogram<u64>,
    start: Instant,
    end: Instant,
}

impl LoadTally {
    pub(super) fn new(start: Instant) -> Self {
        let most = u64::try_from(MAX_TIME.as_micros() * 2).unwrap_or(u64::MAX);
        Self {
            report: LoadReport::default(),
            latency: Histogram::new_with_max(most, 3).expect("the bounds are sound"),
            start,
            end: start,
        }
    }

    /// Counts one request; returns how many there are.
    pub(super) fn sample(&mut self, sample: &Sample) -> u64 {
        let report = &mut self.report;
        self.end = Instant::now();
        report.requests += 1;
        report.body_bytes += sample.body_bytes;
        report.lost_bytes += sample.lost_bytes;
        match &sample.outcome {
            RequestOutcome::Whole(status) => {
                report.whole += 1;
                *match status.as_u16() {
                    400..500 => &mut report.status_4xx,
                    500.. => &mut report.status_5xx,
                    _ => &mut report.status_2xx_3xx,
                } += 1;
                let micros = u64::try_from(sample.latency.as_micros()).unwrap_or(u64::MAX);
                self.latency.saturating_record(micros);
            }
            RequestOutcome::Truncated(cut) => report.truncated.add(*cut),
            RequestOutcome::NoResponse(cut) => report.no_response.add(*cut),
            RequestOutcome::Refused(_) => report.refused += 1,
            RequestOutcome::TimedOut => report.timeouts += 1,
            RequestOutcome::BadResponse(_) => report.bad_responses += 1,
        }
        let reset = sample.failure.filter(Failure::is_reset);
        report.resets += u64::from(reset.is_some());
        match (&sample.outcome, reset) {
            (RequestOutcome::Whole(_), Some(reset)) => {
                report.harmless_resets += 1;
                self.count(LoadFailure::harmless(reset));
            }
            (RequestOutcome::Whole(_), None) => {}
            _ => self.count(LoadFailure::of(sample)),
        }
        self.report.requests
    }

    /// Whether no request so far got an answer of HTTP/1.1 other than 400, as from a server with another protocol.
    pub(super) fn doubts_the_protocol(&self, last: &Sample) -> bool {
        let doubtful = match &last.outcome {
            RequestOutcome::Whole(status) => *status == StatusCode::BAD_REQUEST,
            RequestOutcome::BadResponse(_) | RequestOutcome::NoResponse(_) => true,
            _ => false,
        };
        let report = &self.report;
        doubtful && report.whole == report.status_4xx && report.truncated.total() == 0
    }

    /// Notes that the server speaks another protocol.
    pub(super) fn speaks(&mut self, protocol: &'static str) {
        self.report.other_protocol = Some(protocol);
    }

    /// Counts a reset that came after a whole response.
    pub(super) fn late_reset(&mut self, failure: Failure) {
        self.report.resets += 1;
        self.report.harmless_resets += 1;
        self.count(LoadFailure::harmless(failure));
    }

    /// Counts a request that goes out a second time.
    pub(super) fn sent_again(&mut self) {
        self.report.sent_again += 1;
    }

    fn count(&mut self, new: LoadFailure) {
        let failures = &mut self.report.failures;
        tally(failures, new, LoadFailure::is_like, |known, new| {
            known.count += new.count;
            known.on_kept_connection += new.on_kept_connection;
            known.lost_bytes += new.lost_bytes;
        });
    }

    pub(super) fn report(mut self, interrupted: bool) -> LoadReport {
        let quantile = |quantile| self.latency.value_at_quantile(quantile);
        self.report.latency_us = (!self.latency.is_empty()).then(|| Latency {
            p50: quantile(0.5),
            p90: quantile(0.9),
            p99: quantile(0.99),
            p999: quantile(0.999),
            max: self.latency.max(),
        });
        self.report.seconds = (self.end - self.start).as_secs_f64();
        self.report.interrupted = interrupted;
        self.report
            .failures
            .sort_by_key(|failure| std::cmp::Reverse(failure.count));
        self.report
    }
}

impl LoadFailure {
    fn harmless(failure: Failure) -> Self {
        let called = (failure.call.to_string(), failure.errno);
        Self::new(FailedAs::Harmless, Ok(called), Some(failure.phase))
    }

    fn of(sample: &Sample) -> Self {
        let (outcome, text) = match &sample.outcome {
            RequestOutcome::Whole(_) => (FailedAs::Harmless, ""),
            RequestOutcome::Truncated(_) => (FailedAs::Truncated, "the stream ended"),
            RequestOutcome::NoResponse(_) => (FailedAs::NoResponse, "the stream ended"),
            RequestOutcome::Refused(errno) => {
                let called = ("connect()".to_owned(), *errno);
                return Self::new(FailedAs::Refused, Ok(called), None);
            }
            RequestOutcome::TimedOut => (FailedAs::Timeout, "the time limit was reached"),
            RequestOutcome::BadResponse(text) => (FailedAs::BadResponse, text.as_str()),
        };
        let new = match sample.failure {
            Some(failure) => Self {
                outcome,
                ..Self::harmless(failure)
            },
            None => Self::new(outcome, Err(text), sample.phase),
        };
        Self {
            on_kept_connection: u64::from(sample.reused),
            lost_bytes: sample.lost_bytes,
            ..new
        }
    }

    /// A failure that happened once: of a call with an error number, or of no call and with a text instead.
    fn new(outcome: FailedAs, failed: Result<(String, i32), &str>, phase: Option<Phase>) -> Self {
        Self {
            outcome,
            error: match &failed {
                Ok((_, errno)) => errno::text(*errno),
                Err(text) => (*text).to_owned(),
            },
            errno: failed.as_ref().ok().map(|(_, errno)| *errno),
            call: failed.ok().map(|(call, _)| call),
            phase: phase.map_or("connecting".to_owned(), |phase| phase.to_string()),
            count: 1,
            on_kept_connection: 0,
            lost_bytes: 0,
        }
    }

    fn is_like(&self, other: &Self) -> bool {
        (self.outcome, self.errno) == (other.outcome, other.errno)
            && [&self.error, &self.phase] == [&other.error, &other.phase]
            && self.call == other.call
    }
}
