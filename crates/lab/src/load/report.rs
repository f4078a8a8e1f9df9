use hdrhistogram::Histogram;
use rstlab_wire::Failure;
use serde::Serialize;
use tokio::time::Instant;

use super::MOST_TIME;
use super::outcome::{Cut, Outcome, Sample};

/// What became of a run's requests. `schema/load.json` describes it as JSON.
///
/// `requests` is the sum of `whole`, `truncated`, `no_response`, `refused`, `timeouts` and `bad_responses`:
/// each request is exactly one of these. Resets are counted apart: not every reset loses something, and not
/// every loss shows as a reset.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Report {
    /// Requests with an outcome.
    pub requests: u64,
    /// Responses that came to their end.
    ///
    /// One without a length, which the end of the stream ends, counts as whole after a FIN: nobody can tell.
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
    /// Connections that did not come about, for whatever reason of `connect(2)`.
    pub refused: u64,
    /// Requests given up at the time limit.
    pub timeouts: u64,
    /// Answers that were not HTTP.
    pub bad_responses: u64,
    /// Resets seen, harmful or not.
    pub resets: u64,
    /// Of these, the ones that cost nobody a response.
    pub harmless_resets: u64,
    /// Requests sent a second time, because the kept connection had ended before it reached the server.
    pub sent_again: u64,
    /// Bytes of response bodies that came.
    pub body_bytes: u64,
    /// Bytes of response bodies that were announced (`Content-Length`) and did not come.
    pub lost_bytes: u64,
    /// From the start of the first request to the end of the last.
    pub seconds: f64,
    /// The run ended before the plan was done: it was told to, or an hour was up.
    pub interrupted: bool,
    /// Of whole responses; `None` if there was none.
    pub latency_us: Option<Latency>,
    /// Everything that failed, the most frequent first.
    pub failures: Vec<FailureCount>,
}

/// Responses that were cut, by what cut them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Cuts {
    /// A RST: `ECONNRESET`.
    pub by_reset: u64,
    /// An early end of the stream.
    pub by_eof: u64,
    /// Another error of the kernel's.
    pub by_error: u64,
}

impl Cuts {
    /// All of them.
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Latency {
    /// Half of the responses took at most this long.
    pub p50: u64,
    /// 90 of 100.
    pub p90: u64,
    /// 99 of 100.
    pub p99: u64,
    /// 999 of 1,000.
    pub p999: u64,
    /// The slowest.
    pub max: u64,
}

/// Failures of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FailureCount {
    /// `truncated`, `no-response`, `refused`, `timeout`, `bad-response`, or `harmless`: a reset that cost nothing.
    pub outcome: &'static str,
    /// The system call that failed first, if one did.
    pub call: Option<String>,
    /// Its error number.
    pub errno: Option<i32>,
    /// The error's text; without a failed call, what happened instead.
    pub error: String,
    /// How far the exchange had come: `connecting`, then as [`rstlab_wire::Phase`].
    pub phase: String,
    /// How often.
    pub count: u64,
    /// Of these, on a connection that had carried a whole exchange before.
    pub on_kept_connection: u64,
    /// Bytes lost by them, as far as the length was announced.
    pub lost_bytes: u64,
}

impl Report {
    /// Whether every request got a whole response, and the plan was carried out.
    pub fn all_whole(&self) -> bool {
        self.requests > 0 && self.whole == self.requests && !self.interrupted
    }
}

/// Counts while a run goes on.
pub(super) struct Tally {
    report: Report,
    latency: Histogram<u64>,
    start: Instant,
    end: Instant,
}

impl Tally {
    pub(super) fn new(start: Instant) -> Self {
        let most = u64::try_from(MOST_TIME.as_micros() * 2).unwrap_or(u64::MAX);
        Self {
            report: Report::default(),
            latency: Histogram::new_with_max(most, 3).expect("the bounds are sound"),
            start,
            end: start,
        }
    }

    /// Enters one request's outcome; returns how many there are.
    pub(super) fn sample(&mut self, sample: &Sample) -> u64 {
        let report = &mut self.report;
        self.end = Instant::now();
        report.requests += 1;
        report.body_bytes += sample.body_bytes;
        report.lost_bytes += sample.lost_bytes;
        match &sample.outcome {
            Outcome::Whole(status) => {
                report.whole += 1;
                *match status.as_u16() {
                    400..500 => &mut report.status_4xx,
                    500.. => &mut report.status_5xx,
                    _ => &mut report.status_2xx_3xx,
                } += 1;
                let micros = u64::try_from(sample.latency.as_micros()).unwrap_or(u64::MAX);
                self.latency.saturating_record(micros);
            }
            Outcome::Truncated(cut) => report.truncated.add(*cut),
            Outcome::NoResponse(cut) => report.no_response.add(*cut),
            Outcome::Refused(_) => report.refused += 1,
            Outcome::TimedOut => report.timeouts += 1,
            Outcome::BadResponse(_) => report.bad_responses += 1,
        }
        let reset = sample.failure.filter(Failure::is_reset);
        report.resets += u64::from(reset.is_some());
        match (&sample.outcome, reset) {
            (Outcome::Whole(_), Some(reset)) => {
                report.harmless_resets += 1;
                self.count(FailureCount::harmless(reset));
            }
            (Outcome::Whole(_), None) => {}
            _ => self.count(FailureCount::of(sample)),
        }
        self.report.requests
    }

    /// Enters a reset that came after a whole response.
    pub(super) fn late_reset(&mut self, failure: Failure) {
        self.report.resets += 1;
        self.report.harmless_resets += 1;
        self.count(FailureCount::harmless(failure));
    }

    /// Enters a request that goes out a second time.
    pub(super) fn sent_again(&mut self) {
        self.report.sent_again += 1;
    }

    fn count(&mut self, new: FailureCount) {
        let failures = &mut self.report.failures;
        match failures.iter_mut().find(|known| known.is_kind_of(&new)) {
            Some(known) => {
                known.count += new.count;
                known.on_kept_connection += new.on_kept_connection;
                known.lost_bytes += new.lost_bytes;
            }
            None => failures.push(new),
        }
    }

    pub(super) fn report(mut self, interrupted: bool) -> Report {
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

impl FailureCount {
    fn harmless(failure: Failure) -> Self {
        Self {
            call: Some(failure.call.to_string()),
            errno: Some(failure.errno),
            ..Self::new(
                "harmless",
                os_text(failure.errno),
                failure.phase.to_string(),
            )
        }
    }

    fn of(sample: &Sample) -> Self {
        let (outcome, text) = match &sample.outcome {
            Outcome::Whole(_) => ("harmless", String::new()),
            Outcome::Truncated(_) => ("truncated", "the stream ended".to_owned()),
            Outcome::NoResponse(_) => ("no-response", "the stream ended".to_owned()),
            Outcome::Refused(errno) => {
                return Self {
                    call: Some("connect()".to_owned()),
                    errno: Some(*errno),
                    ..Self::new("refused", os_text(*errno), "connecting".to_owned())
                };
            }
            Outcome::TimedOut => ("timeout", "the time limit was reached".to_owned()),
            Outcome::BadResponse(text) => ("bad-response", text.clone()),
        };
        let phase = sample
            .phase
            .map_or_else(|| "connecting".to_owned(), |phase| phase.to_string());
        let new = match sample.failure {
            Some(failure) => Self {
                outcome,
                ..Self::harmless(failure)
            },
            None => Self::new(outcome, text, phase),
        };
        Self {
            on_kept_connection: u64::from(sample.reused),
            lost_bytes: sample.lost_bytes,
            ..new
        }
    }

    fn new(outcome: &'static str, error: String, phase: String) -> Self {
        Self {
            outcome,
            call: None,
            errno: None,
            error,
            phase,
            count: 1,
            on_kept_connection: 0,
            lost_bytes: 0,
        }
    }

    fn is_kind_of(&self, other: &Self) -> bool {
        (
            self.outcome,
            &self.call,
            self.errno,
            &self.error,
            &self.phase,
        ) == (
            other.outcome,
            &other.call,
            other.errno,
            &other.error,
            &other.phase,
        )
    }
}

/// The kernel's text for an error number, as strace and nginx give it.
fn os_text(errno: i32) -> String {
    let text = std::io::Error::from_raw_os_error(errno).to_string();
    text.split(" (os error")
        .next()
        .unwrap_or_default()
        .to_owned()
}
