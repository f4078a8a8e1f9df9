use std::error::Error;
use std::io;
use std::time::Duration;

use http::StatusCode;
use rstlab_wire::{Call, Failure, Phase, Seen};

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
        // A read fails only after everything that was queued has been read: the response was whole by then,
        // even if hyper had not handed its end to us yet.
        let after_whole = |failure: Failure| match (&outcome, failure.call) {
            (Outcome::Whole(_), Call::Recv) => Failure {
                phase: Phase::AfterResponse,
                ..failure
            },
            _ => failure,
        };
        Self {
            latency,
            failure: failure.map(after_whole),
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
    let mut source: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = source {
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
        source = error.source();
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

/// An error with its sources, in one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(step: fn(&Seen)) -> Sample {
        let seen = Seen::default();
        seen.response_head();
        step(&seen);
        let so_far = SoFar {
            seen: Some(seen),
            status: Some(StatusCode::OK),
            expected_bytes: Some(5),
            body_bytes: 5,
            ..SoFar::default()
        };
        Sample::new(&so_far, Ok(()), Duration::ZERO)
    }

    #[test]
    fn a_read_that_fails_behind_a_whole_response_failed_after_it() {
        fn reset() -> io::Error {
            io::Error::from_raw_os_error(104)
        }
        let sample = whole(|seen| seen.failed(Call::Recv, &reset()));
        assert_eq!(sample.outcome, Outcome::Whole(StatusCode::OK));
        assert_eq!(sample.failure.unwrap().phase, Phase::AfterResponse);
        // A write may have failed at any time before.
        let sample = whole(|seen| seen.failed(Call::Writev, &reset()));
        assert_eq!(sample.failure.unwrap().phase, Phase::SendingHead);
    }
}
