//! Records the system calls on one connection.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::monotonic_now;

/// Limit of the calls kept from a connection's beginning.
const MAX_FIRST: usize = 64;

/// Limit of the calls kept from a connection's end.
const MAX_LAST: usize = 192;

/// A system call on a connection, as strace names it.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
    strum::IntoStaticStr,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "lowercase")]
pub enum SysCall {
    /// `connect(2)`, until the connection was there.
    Connect,
    /// `accept4(2)`.
    Accept4,
    /// `setsockopt(2)` with `TCP_NODELAY`.
    #[strum(serialize = "setsockopt(TCP_NODELAY)")]
    Nodelay,
    /// `setsockopt(2)` with `SO_LINGER` zero.
    #[strum(serialize = "setsockopt(SO_LINGER 0)")]
    LingerZero,
    /// `recv(2)`; strace shows `recvfrom`.
    Recv,
    /// `recv(2)` with `MSG_PEEK`.
    #[strum(serialize = "recv(MSG_PEEK)")]
    Peek,
    /// `splice(2)`, from the socket.
    Splice,
    /// `writev(2)`.
    Writev,
    /// `shutdown(2)` with `SHUT_WR`.
    #[strum(serialize = "shutdown(SHUT_WR)")]
    Shutdown,
    /// `ioctl(2)` with `FIONREAD`: returns the bytes that lie unread.
    #[strum(serialize = "ioctl(FIONREAD)")]
    Unread,
    /// `ioctl(2)` with `TIOCOUTQ`: returns the bytes that are not acknowledged.
    #[strum(serialize = "ioctl(TIOCOUTQ)")]
    Unsent,
    /// `getsockopt(2)` with `SO_ERROR`: fails with the error that waited in the socket.
    #[strum(serialize = "getsockopt(SO_ERROR)")]
    SoError,
    /// `close(2)`.
    Close,
}

impl SysCall {
    /// The call's name on a timeline.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// A system call that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// When it began, on `CLOCK_MONOTONIC`.
    pub at: Duration,
    /// The call.
    pub call: SysCall,
    /// The returned number of bytes, or zero; or the `errno`.
    pub returned: Result<u64, i32>,
}

/// The system calls on one connection, in their order; a blank tape records nothing.
///
/// A call that would have blocked (`EAGAIN`) is left out. Memory is bounded: of too many calls the first and the last are
/// kept.
#[derive(Debug, Default)]
pub struct Tape(Option<Box<Calls>>);

#[derive(Debug, Default)]
struct Calls {
    first: Vec<Moment>,
    last: VecDeque<Moment>,
    left_out: u64,
}

/// When a call began; see [`Tape::begin`].
#[derive(Debug, Clone, Copy)]
pub struct Began(Duration);

impl Tape {
    /// A tape that records.
    pub fn recording() -> Self {
        Self(Some(Box::new(Calls {
            first: Vec::with_capacity(MAX_FIRST),
            ..Calls::default()
        })))
    }

    /// A call is about to be made.
    pub fn begin(&self) -> Began {
        Began(self.0.as_ref().map_or(Duration::ZERO, |_| monotonic_now()))
    }

    /// The call was made. An error that is not the kernel's has the number 0.
    pub fn note(&mut self, began: Began, call: SysCall, returned: Result<u64, &io::Error>) {
        let Some(calls) = &mut self.0 else { return };
        if returned.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            return;
        }
        let moment = Moment {
            at: began.0,
            call,
            returned: returned.map_err(|error| error.raw_os_error().unwrap_or(0)),
        };
        if calls.first.len() < MAX_FIRST {
            calls.first.push(moment);
            return;
        }
        calls.last.push_back(moment);
        if calls.last.len() > MAX_LAST {
            calls.last.pop_front();
            calls.left_out += 1;
        }
    }

    /// The calls, and how many were left out after the first 64.
    pub fn into_calls(self) -> (Vec<Moment>, u64) {
        let Calls {
            mut first,
            last,
            left_out,
        } = self.0.map_or_else(Calls::default, |calls| *calls);
        first.extend(last);
        (first, left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tape_keeps_the_first_calls_and_the_last() {
        let mut tape = Tape::recording();
        for n in 0..1000 {
            let began = tape.begin();
            tape.note(began, SysCall::Recv, Ok(n));
        }
        let error = io::Error::from_raw_os_error(104);
        tape.note(tape.begin(), SysCall::Recv, Err(&error));
        let (moments, left_out) = tape.into_calls();
        assert_eq!((moments.len(), left_out), (256, 745));
        assert_eq!(moments[63].returned, Ok(63));
        assert_eq!(moments[64].returned, Ok(809));
        assert_eq!(moments[255].returned, Err(104));
        assert!(moments.is_sorted_by_key(|moment| moment.at));
    }

    #[test]
    fn a_blank_tape_keeps_nothing() {
        let mut tape = Tape::default();
        tape.note(tape.begin(), SysCall::Close, Ok(0));
        assert_eq!(tape.into_calls(), (Vec::new(), 0));
    }
}
