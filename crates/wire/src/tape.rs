use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::monotonic_now;

/// Most calls that are kept of a connection: so many from its beginning, so many from its end.
const FIRST: usize = 64;
const LAST: usize = 192;

/// A system call on a connection, as strace names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SysCall {
    /// `connect(2)`, until the connection was there.
    Connect,
    /// `accept4(2)`.
    Accept4,
    /// `setsockopt(2)` with `TCP_NODELAY`.
    Nodelay,
    /// `setsockopt(2)` with `SO_LINGER` zero.
    LingerZero,
    /// `recv(2)`; strace shows `recvfrom`.
    Recv,
    /// `recv(2)` with `MSG_PEEK`.
    Peek,
    /// `writev(2)`.
    Writev,
    /// `shutdown(2)` with `SHUT_WR`.
    Shutdown,
    /// `ioctl(2)` with `FIONREAD`: returns the bytes that lie unread.
    Unread,
    /// `ioctl(2)` with `TIOCOUTQ`: returns the bytes that are not acknowledged.
    Unsent,
    /// `getsockopt(2)` with `SO_ERROR`: fails with the error that waited in the socket.
    SoError,
    /// `close(2)`.
    Close,
}

impl SysCall {
    /// As it stands on a timeline.
    pub fn as_str(self) -> &'static str {
        match self {
            SysCall::Connect => "connect",
            SysCall::Accept4 => "accept4",
            SysCall::Nodelay => "setsockopt(TCP_NODELAY)",
            SysCall::LingerZero => "setsockopt(SO_LINGER 0)",
            SysCall::Recv => "recv",
            SysCall::Peek => "recv(MSG_PEEK)",
            SysCall::Writev => "writev",
            SysCall::Shutdown => "shutdown(SHUT_WR)",
            SysCall::Unread => "ioctl(FIONREAD)",
            SysCall::Unsent => "ioctl(TIOCOUTQ)",
            SysCall::SoError => "getsockopt(SO_ERROR)",
            SysCall::Close => "close",
        }
    }
}

/// A system call that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// When it began, on `CLOCK_MONOTONIC`.
    pub at: Duration,
    /// Which.
    pub call: SysCall,
    /// What it returned: bytes, or zero; or its `errno`.
    pub returned: Result<u64, i32>,
}

/// The system calls on one connection, in their order; blank unless somebody wants them.
///
/// A call that would have blocked (`EAGAIN`) is not on it: nothing happened. Cloning shares the tape. Its memory is
/// bounded: of too many calls the first and the last are kept.
#[derive(Debug, Clone, Default)]
pub struct Tape(Option<Arc<Mutex<Reel>>>);

#[derive(Debug, Default)]
struct Reel {
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
        let reel = Reel {
            first: Vec::with_capacity(FIRST),
            ..Reel::default()
        };
        Self(Some(Arc::new(Mutex::new(reel))))
    }

    /// A call is about to be made.
    pub fn begin(&self) -> Began {
        Began(self.0.as_ref().map_or(Duration::ZERO, |_| monotonic_now()))
    }

    /// It was made. An error that is not the kernel's has the number 0.
    pub fn note(&self, began: Began, call: SysCall, returned: Result<u64, &io::Error>) {
        let Some(mut reel) = self.reel() else { return };
        if returned.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            return;
        }
        let moment = Moment {
            at: began.0,
            call,
            returned: returned.map_err(|error| error.raw_os_error().unwrap_or(0)),
        };
        if reel.first.len() < FIRST {
            reel.first.push(moment);
            return;
        }
        reel.last.push_back(moment);
        if reel.last.len() > LAST {
            reel.last.pop_front();
            reel.left_out += 1;
        }
    }

    /// Takes what is on it: the calls, and how many were left out after the first 64.
    pub fn take(&self) -> (Vec<Moment>, u64) {
        let Some(mut reel) = self.reel() else {
            return (Vec::new(), 0);
        };
        let Reel {
            mut first,
            last,
            left_out,
        } = std::mem::take(&mut *reel);
        first.extend(last);
        (first, left_out)
    }

    fn reel(&self) -> Option<MutexGuard<'_, Reel>> {
        // No code panics while it holds the lock.
        let reel = self.0.as_ref()?;
        Some(reel.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_first_and_the_last() {
        let tape = Tape::recording();
        for n in 0..1000 {
            tape.note(tape.begin(), SysCall::Recv, Ok(n));
        }
        tape.note(
            tape.begin(),
            SysCall::Recv,
            Err(&io::Error::from_raw_os_error(104)),
        );
        let (moments, left_out) = tape.take();
        assert_eq!((moments.len(), left_out), (256, 745));
        assert_eq!(moments[63].returned, Ok(63));
        assert_eq!(moments[64].returned, Ok(809));
        assert_eq!(moments[255].returned, Err(104));
        assert!(moments.is_sorted_by_key(|moment| moment.at));
        assert_eq!(tape.take(), (Vec::new(), 0));
    }

    #[test]
    fn a_blank_one_keeps_nothing() {
        let tape = Tape::default();
        tape.note(tape.begin(), SysCall::Close, Ok(0));
        assert_eq!(tape.take(), (Vec::new(), 0));
    }
}
