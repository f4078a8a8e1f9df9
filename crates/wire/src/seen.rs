//! The facts that one end of a connection sees: bytes, the phase of the exchange, the first call that failed, the calls.

use std::fmt;
use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::HeadEnd;
use crate::message::ResponseHead;
use crate::{Tape, monotonic_now};

/// The system call that failed, as strace names it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema, strum::Display,
)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    /// `connect(2)`
    #[strum(serialize = "connect()")]
    Connect,
    /// `recv(2)`
    #[strum(serialize = "recv()")]
    Recv,
    /// `splice(2)`, from the socket.
    #[strum(serialize = "splice()")]
    Splice,
    /// `writev(2)`
    #[strum(serialize = "writev()")]
    Writev,
    /// `getsockopt(2)` with `SO_ERROR`: an error that waited in the socket while nobody read or wrote.
    #[strum(serialize = "getsockopt(SO_ERROR)")]
    SoError,
}

/// How far an exchange on a connection had come.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
    strum::Display,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum Phase {
    /// The request's head was not out yet.
    SendingHead,
    /// The head was out, the body not.
    SendingBody,
    /// The request was out, no byte of an answer had come.
    Waiting,
    /// Some of the answer's head had come.
    ReadingHead,
    /// The answer's head had come, its body not wholly.
    ReadingBody,
    /// The whole answer had come.
    AfterResponse,
}

/// A system call that failed on a connection: which, with what error, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Failure {
    /// The call that failed.
    pub call: Call,
    /// The error number (`errno`); 0 if the error did not come from the kernel.
    pub errno: i32,
    /// How far the exchange had come.
    pub phase: Phase,
}

impl Failure {
    /// Whether the error means that a RST came: `ECONNRESET`, or `EPIPE` where a FIN had come before
    /// the RST (`tcp_reset`: the error depends on the socket's state).
    pub fn is_reset(&self) -> bool {
        matches!(
            io::Error::from_raw_os_error(self.errno).kind(),
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
        )
    }
}

/// As nginx logs it: `recv() failed (104: Connection reset by peer)`.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.call {
            Call::Connect | Call::Recv | Call::Splice | Call::Writev => "failed",
            // The call itself succeeds: it tells of an error.
            Call::SoError => "returned",
        };
        write!(f, "{} {what} ({})", self.call, errno_text(self.errno))
    }
}

/// An error number with its text, `104: Connection reset by peer`.
pub fn errno_text(errno: i32) -> String {
    let text = io::Error::from_raw_os_error(errno).to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    format!("{errno}: {text}")
}

/// A flag that the end of a request's body sets, and the sender of the request reads.
///
/// Clones share the flag.
#[derive(Debug, Clone, Default)]
pub struct RequestEnd(Arc<AtomicBool>);

impl RequestEnd {
    /// The request has no more bytes to give.
    pub fn reach(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether the request has no more bytes to give.
    pub fn is_reached(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The facts that one end of a connection saw. A [`Sensor`](crate::Sensor) writes them, the connection's driver owns them.
#[derive(Debug, Default)]
pub struct Seen {
    /// The system calls, if a record of them is wanted.
    pub tape: Tape,
    written_bytes: u64,
    /// When bytes were last written.
    last_write: Option<Duration>,
    /// Time between the last write and the write before it.
    pause: Duration,
    read_bytes: u64,
    request_head: HeadEnd,
    head_written: bool,
    /// Bytes of the request's head that the kernel took.
    head_bytes: u64,
    request_end: RequestEnd,
    response_head: ResponseHead,
    response_whole: bool,
    failure: Option<Failure>,
}

/// The place where a [`Sensor`](crate::Sensor) keeps its [`Seen`]: in itself, or shared with readers.
pub trait Account {
    /// Runs `note` on the facts.
    fn with<R>(&mut self, note: impl FnOnce(&mut Seen) -> R) -> R;
}

impl Account for Seen {
    fn with<R>(&mut self, note: impl FnOnce(&mut Seen) -> R) -> R {
        note(self)
    }
}

/// A [`Seen`] that others read while the connection runs. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct SharedSeen(Arc<Mutex<Seen>>);

impl SharedSeen {
    /// Runs `look` on the facts.
    pub fn look<R>(&self, look: impl FnOnce(&mut Seen) -> R) -> R {
        // No code panics while it holds the lock; the facts would still be true if some code did.
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Account for SharedSeen {
    fn with<R>(&mut self, note: impl FnOnce(&mut Seen) -> R) -> R {
        self.look(note)
    }
}

impl Seen {
    /// No facts yet, of a connection that carries a request up to `request_end`.
    pub fn new(tape: Tape, request_end: RequestEnd) -> Self {
        Self {
            tape,
            request_end,
            ..Self::default()
        }
    }

    /// Notes that the kernel took the first `bytes` bytes of `bufs`.
    pub(crate) fn wrote(&mut self, bufs: &[IoSlice<'_>], bytes: usize) {
        let now = monotonic_now();
        self.written_bytes += bytes as u64;
        let last = self.last_write.replace(now);
        self.pause = last.map_or(Duration::ZERO, |last| now.saturating_sub(last));
        let mut left = bytes;
        for buf in bufs {
            if self.head_written {
                return;
            }
            let part = &buf[..left.min(buf.len())];
            left -= part.len();
            let end = self.request_head.feed(part);
            self.head_written = end.is_some();
            self.head_bytes += end.unwrap_or(part.len()) as u64;
        }
    }

    /// Notes bytes that were read.
    pub(crate) fn read(&mut self, bytes: &[u8]) {
        self.read_bytes += bytes.len() as u64;
        self.response_head.feed(bytes);
    }

    /// Notes bytes of the response's body that went into a pipe.
    pub(crate) fn spliced(&mut self, bytes: usize) {
        self.read_bytes += bytes as u64;
    }

    /// Notes a failed call, unless a call has failed before.
    pub fn failed(&mut self, call: Call, error: &io::Error) {
        let phase = self.phase_of(call);
        self.failure.get_or_insert(Failure {
            call,
            errno: error.raw_os_error().unwrap_or(0),
            phase,
        });
    }

    /// The next request on the same connection begins: bytes and phase start anew, the first failure stays.
    pub fn next_request(&mut self, request_end: RequestEnd) {
        *self = Self {
            failure: self.failure,
            request_end,
            tape: std::mem::take(&mut self.tape),
            ..Self::default()
        };
    }

    /// The response was read to its end.
    ///
    /// A read fails only after all queued bytes have been read (`tcp_recvmsg`), so that a read which has failed already
    /// failed after the response. A write may have failed at any time.
    pub fn response_whole(&mut self) {
        self.response_whole = true;
        if let Some(failure) = &mut self.failure
            && failure.call != Call::Writev
        {
            failure.phase = Phase::AfterResponse;
        }
    }

    /// Whether the request's head is out.
    pub fn is_head_written(&self) -> bool {
        self.head_written
    }

    /// Bytes of the request's head that the kernel took.
    pub fn head_bytes(&self) -> u64 {
        self.head_bytes
    }

    /// Whether the request has no more bytes to give.
    pub fn is_request_whole(&self) -> bool {
        self.request_end.is_reached()
    }

    /// The first call that failed.
    pub fn failure(&self) -> Option<Failure> {
        self.failure
    }

    /// The first failure, if it says that a RST came.
    pub fn reset(&self) -> Option<Failure> {
        self.failure.filter(Failure::is_reset)
    }

    /// Bytes that the kernel took.
    pub fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// Time between the last write and the write before it; zero if there was but one write.
    pub fn pause(&self) -> Duration {
        self.pause
    }

    /// Bytes read from the socket, heads included.
    pub fn read_bytes(&self) -> u64 {
        self.read_bytes
    }

    /// How far the exchange has come, from the reader's side.
    pub fn phase(&self) -> Phase {
        self.phase_of(Call::Recv)
    }

    fn phase_of(&self, call: Call) -> Phase {
        if self.response_whole {
            return Phase::AfterResponse;
        }
        let sending = !self.head_written || !self.is_request_whole();
        match call {
            Call::Writev if self.head_written => Phase::SendingBody,
            Call::Connect | Call::Writev => Phase::SendingHead,
            // Only bodies are spliced.
            Call::Splice => Phase::ReadingBody,
            Call::Recv | Call::SoError if self.response_head.is_complete() => Phase::ReadingBody,
            Call::Recv | Call::SoError if self.read_bytes > 0 => Phase::ReadingHead,
            Call::Recv | Call::SoError if sending && self.head_written => Phase::SendingBody,
            Call::Recv | Call::SoError if sending => Phase::SendingHead,
            Call::Recv | Call::SoError => Phase::Waiting,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reset() -> io::Error {
        io::Error::from_raw_os_error(104)
    }

    #[test]
    fn a_failure_reads_as_nginx_logs_it() {
        let mut seen = Seen::default();
        seen.failed(Call::Recv, &reset());
        assert_eq!(
            seen.failure().unwrap().to_string(),
            "recv() failed (104: Connection reset by peer)"
        );
        let mut seen = Seen::default();
        seen.failed(Call::Writev, &io::Error::from_raw_os_error(32));
        assert_eq!(
            seen.reset().unwrap().to_string(),
            "writev() failed (32: Broken pipe)"
        );
    }

    fn head_written(seen: &mut Seen) {
        let head = b"GET / HTTP/1.1\r\n\r\n";
        seen.wrote(&[IoSlice::new(head)], head.len());
    }

    fn request_whole(seen: &mut Seen) {
        seen.request_end.reach();
    }

    #[test]
    fn a_failure_has_the_phase_in_which_its_call_failed() {
        let at = |steps: &[fn(&mut Seen)], call| {
            let mut seen = Seen::default();
            steps.iter().for_each(|step| step(&mut seen));
            seen.failed(call, &reset());
            seen.failure().unwrap().phase
        };
        assert_eq!(at(&[], Call::Writev), Phase::SendingHead);
        assert_eq!(at(&[head_written], Call::Writev), Phase::SendingBody);
        assert_eq!(at(&[head_written], Call::Recv), Phase::SendingBody);
        assert_eq!(
            at(&[head_written, request_whole], Call::Recv),
            Phase::Waiting
        );
        assert_eq!(
            at(&[|seen| seen.read(b"HTTP/1.1 ")], Call::Recv),
            Phase::ReadingHead
        );
        assert_eq!(
            at(&[|seen| seen.read(b"HTTP/1.1 200 OK\r\n\r\n")], Call::Recv),
            Phase::ReadingBody
        );
        assert_eq!(
            at(&[Seen::response_whole], Call::SoError),
            Phase::AfterResponse
        );
    }

    #[test]
    fn the_next_request_starts_anew_on_the_same_connection() {
        let mut seen = Seen::default();
        seen.wrote(&[IoSlice::new(b"POST /")], 5);
        seen.read(b"HTTP/1.1 ");
        seen.response_whole();
        assert_eq!(seen.phase(), Phase::AfterResponse);
        seen.next_request(RequestEnd::default());
        assert_eq!(seen.phase(), Phase::SendingHead);
        assert_eq!((seen.written_bytes(), seen.read_bytes()), (0, 0));
        seen.failed(Call::Recv, &reset());
        seen.next_request(RequestEnd::default());
        assert!(seen.reset().is_some());
    }

    #[test]
    fn a_read_that_failed_behind_the_response_failed_after_it() {
        for (call, phase) in [
            (Call::Recv, Phase::AfterResponse),
            (Call::Writev, Phase::SendingHead),
        ] {
            let mut seen = Seen::default();
            seen.failed(call, &reset());
            seen.response_whole();
            assert_eq!(seen.failure().unwrap().phase, phase);
        }
    }

    #[test]
    fn a_timeout_is_no_reset() {
        let mut seen = Seen::default();
        seen.failed(Call::Recv, &io::Error::from_raw_os_error(110));
        assert!(seen.reset().is_none());
    }
}
