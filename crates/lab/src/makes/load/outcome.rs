//! Judges the outcome of one request by hyper's error and by the facts that were seen on the socket.

use std::io;
use std::time::Duration;

use http::StatusCode;
use rstlab_wire::{Failure, Phase, causes, chain};

use super::connection::ExchangeSoFar;

/// What became of one request: each request has exactly one of these outcomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RequestOutcome {
    /// The response came to its end, whatever its status.
    Whole(StatusCode),
    /// The response's head came, its body not to the end.
    Truncated(Cut),
    /// The connection ended before the response's head was complete.
    NoResponse(Cut),
    /// There was no connection: the error number of `connect(2)`.
    Refused(i32),
    /// The time limit was reached.
    TimedOut,
    /// The answer was not HTTP: hyper's words for it.
    BadResponse(String),
}

/// What ended a response before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// A RST: `ECONNRESET`.
    Reset,
    /// The end of the stream: a FIN that came too early.
    Eof,
    /// Another error of the kernel.
    Error,
}

/// One request, as it is counted.
#[derive(Debug)]
pub(super) struct Sample {
    pub(super) outcome: RequestOutcome,
    /// From the moment it should have been sent to the last byte of the response.
    pub(super) latency: Duration,
    /// The first system call that failed on its connection.
    pub(super) failure: Option<Failure>,
    /// How far the exchange came; `None` if there was no connection.
    pub(super) phase: Option<Phase>,
    /// Its connection had carried a whole exchange before.
    pub(super) reused: bool,
    /// Bytes of the response's body that came.
    pub(super) body_bytes: u64,
    /// Bytes of the response's body that were announced (`Content-Length`) and did not come.
    pub(super) lost_bytes: u64,
}

/// Why an exchange is not whole.
#[derive(Debug)]
pub(super) enum ExchangeError {
    Connect(io::Error),
    Http(hyper::Error),
    TimeLimit,
}

impl Sample {
    pub(super) fn new(
        so_far: &ExchangeSoFar,
        result: Result<(), ExchangeError>,
        latency: Duration,
    ) -> Self {
        let seen = so_far.seen.as_ref();
        let failure = seen.and_then(|seen| seen.look(|seen| seen.failure()));
        let outcome = match (result, so_far.status) {
            (Ok(()), Some(status)) if (200..600).contains(&status.as_u16()) => {
                RequestOutcome::Whole(status)
            }
            (Ok(()), status) => RequestOutcome::BadResponse(format!(
                "a final response with status {}",
                status.unwrap_or_default()
            )),
            (Err(ExchangeError::Connect(error)), _) => {
                RequestOutcome::Refused(error.raw_os_error().unwrap_or(0))
            }
            (Err(ExchangeError::TimeLimit), _) => RequestOutcome::TimedOut,
            (Err(ExchangeError::Http(error)), status) => match cut(&error, failure) {
                Some(cut) if status.is_some() => RequestOutcome::Truncated(cut),
                Some(cut) => RequestOutcome::NoResponse(cut),
                None => RequestOutcome::BadResponse(chain(&error)),
            },
        };
        Self {
            latency,
            failure,
            phase: seen.map(|seen| seen.look(|seen| seen.phase())),
            reused: so_far.reused,
            body_bytes: so_far.body_bytes,
            lost_bytes: match outcome {
                RequestOutcome::Truncated(_)
                | RequestOutcome::TimedOut
                | RequestOutcome::BadResponse(_) => so_far
                    .expected_bytes
                    .map_or(0, |expected| expected.saturating_sub(so_far.body_bytes)),
                RequestOutcome::Whole(_)
                | RequestOutcome::NoResponse(_)
                | RequestOutcome::Refused(_) => 0,
            },
            outcome,
        }
    }
}

/// What cut a response, from the sources of the error; `None` if the response was not cut but wrong.
fn cut(error: &hyper::Error, failure: Option<Failure>) -> Option<Cut> {
    for error in causes(error) {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            match error.kind() {
                io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                    return Some(Cut::Reset);
                }
                io::ErrorKind::UnexpectedEof => return Some(Cut::Eof),
                _ if error.raw_os_error().is_some() => return Some(Cut::Error),
                _ => {}
            }
        }
    }
    if error.is_incomplete_message() {
        return Some(Cut::Eof);
    }
    if error.is_parse() {
        return None;
    }
    // If sending fails, hyper tells the cause neither to a response's body nor to a request that it had not begun.
    match failure {
        Some(failure) if failure.is_reset() => Some(Cut::Reset),
        Some(_) => Some(Cut::Error),
        None if error.is_canceled() || error.is_closed() => Some(Cut::Eof),
        None => None,
    }
}
