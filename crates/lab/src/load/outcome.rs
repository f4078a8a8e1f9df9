use std::io;
use std::time::Duration;

use http::StatusCode;
use rstlab_wire::{Failure, Phase, Seen, causes, chain};

use super::link::SoFar;

/// What became of one request. Each is exactly one of these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The response came to its end, whatever its status.
    Whole(StatusCode),
    /// The response's head came, its body not to the end.
    Truncated(Cut),
    /// The connection ended before the response's head was complete.
    NoResponse(Cut),
    /// No connection came about; the error number of `connect(2)`.
    Refused(i32),
    /// We gave up waiting.
    TimedOut,
    /// What came was not HTTP; what hyper says of it.
    BadResponse(String),
}

/// What ended a response before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// A RST: `ECONNRESET`.
    Reset,
    /// The end of the stream: a FIN that came too early.
    Eof,
    /// Another error of the kernel's.
    Error,
}

/// One request in the books.
#[derive(Debug)]
pub(super) struct Sample {
    pub(super) outcome: Outcome,
    /// From the moment it should have been sent to the last byte of the response.
    pub(super) latency: Duration,
    /// The first system call that failed on its connection.
    pub(super) failure: Option<Failure>,
    /// How far it came; `None` if there was no connection.
    pub(super) phase: Option<Phase>,
    /// Its connection had carried a whole exchange before.
    pub(super) reused: bool,
    /// Bytes of the response's body that came.
    pub(super) body_bytes: u64,
    /// Bytes of the body that were announced (`Content-Length`) and did not come.
    pub(super) lost_bytes: u64,
}

/// Why an exchange is not whole.
#[derive(Debug)]
pub(super) enum Trouble {
    Connect(io::Error),
    Http(hyper::Error),
    TimeLimit,
}

impl Sample {
    pub(super) fn new(so_far: &SoFar, result: Result<(), Trouble>, latency: Duration) -> Self {
        let seen = so_far.seen.as_ref();
        let failure = seen.and_then(Seen::failure);
        let outcome = match (result, so_far.status) {
            (Ok(()), Some(status)) if (200..600).contains(&status.as_u16()) => {
                Outcome::Whole(status)
            }
            (Ok(()), status) => Outcome::BadResponse(format!(
                "a final response with status {}",
                status.unwrap_or_default()
            )),
            (Err(Trouble::Connect(error)), _) => {
                Outcome::Refused(error.raw_os_error().unwrap_or(0))
            }
            (Err(Trouble::TimeLimit), _) => Outcome::TimedOut,
            (Err(Trouble::Http(error)), status) => match cut(&error, failure) {
                Some(cut) if status.is_some() => Outcome::Truncated(cut),
                Some(cut) => Outcome::NoResponse(cut),
                None => Outcome::BadResponse(chain(&error)),
            },
        };
        Self {
            latency,
            failure,
            phase: seen.map(Seen::phase),
            reused: so_far.reused,
            body_bytes: so_far.body_bytes,
            lost_bytes: match outcome {
                Outcome::Truncated(_) | Outcome::TimedOut | Outcome::BadResponse(_) => so_far
                    .expected_bytes
                    .map_or(0, |expected| expected.saturating_sub(so_far.body_bytes)),
                Outcome::Whole(_) | Outcome::NoResponse(_) | Outcome::Refused(_) => 0,
            },
            outcome,
        }
    }
}

/// What cut a response, from the error's sources; `None` if it was not cut but wrong.
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
    // hyper does not pass the cause on to a body when sending fails, nor to a request it had not begun.
    match failure {
        Some(failure) if failure.is_reset() => Some(Cut::Reset),
        Some(_) => Some(Cut::Error),
        None if error.is_canceled() || error.is_closed() => Some(Cut::Eof),
        None => None,
    }
}
