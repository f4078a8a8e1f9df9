use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::monotonic_now;
use crate::response_head::ResponseHead;

/// The system call that failed, as strace names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    /// `recv(2)`
    Recv,
    /// `writev(2)`
    Writev,
    /// `getsockopt(2)` with `SO_ERROR`: an error that waited in the socket while nobody read or wrote.
    SoError,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Call::Recv => "recv()",
            Call::Writev => "writev()",
            Call::SoError => "getsockopt(SO_ERROR)",
        })
    }
}

/// How far an exchange on a connection had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
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

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::SendingHead => "sending-head",
            Phase::SendingBody => "sending-body",
            Phase::Waiting => "waiting",
            Phase::ReadingHead => "reading-head",
            Phase::ReadingBody => "reading-body",
            Phase::AfterResponse => "after-response",
        })
    }
}

/// A system call that failed on a connection: which, with what error, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
            Call::Recv | Call::Writev => "failed",
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

/// A shared account of one connection as its client side sees it.
///
/// [`Sensor`](crate::Sensor) writes down what the system calls did; whoever knows more adds how far the request
/// has come and when the response was whole. Cloning shares the account.
#[derive(Debug, Clone, Default)]
pub struct Seen(Arc<Mutex<Account>>);

#[derive(Debug, Default)]
struct Account {
    written_bytes: u64,
    /// When bytes were last written, and how long before that no bytes were.
    last_write: Option<Duration>,
    pause: Duration,
    read_bytes: u64,
    head_written: bool,
    /// Of the request's head, as far as the kernel took them.
    head_bytes: u64,
    request_whole: bool,
    response_head: ResponseHead,
    response_whole: bool,
    failure: Option<Failure>,
}

impl Seen {
    fn account(&self) -> MutexGuard<'_, Account> {
        // No code panics while it holds the lock; an account is still true if one did.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn wrote(&self, bytes: usize) {
        let now = monotonic_now();
        let mut account = self.account();
        account.written_bytes += bytes as u64;
        let last = account.last_write.replace(now);
        account.pause = last.map_or(Duration::ZERO, |last| now.saturating_sub(last));
    }

    /// So many of the bytes that the kernel took are the head's.
    pub(crate) fn wrote_of_head(&self, bytes: usize) {
        self.account().head_bytes += bytes as u64;
    }

    /// Notes bytes that were read.
    pub fn read(&self, bytes: &[u8]) {
        let mut account = self.account();
        account.read_bytes += bytes.len() as u64;
        account.response_head.feed(bytes);
    }

    /// Notes a failed call; the first one stays.
    pub fn failed(&self, call: Call, error: &io::Error) {
        let mut account = self.account();
        let phase = account.phase(call);
        account.failure.get_or_insert(Failure {
            call,
            errno: error.raw_os_error().unwrap_or(0),
            phase,
        });
    }

    /// The next request on the same connection begins: bytes and phase start anew.
    ///
    /// The first failure stays: it is the connection's.
    pub fn next_request(&self) {
        let mut account = self.account();
        *account = Account {
            failure: account.failure,
            ..Account::default()
        };
    }

    /// The request's head is out.
    pub fn head_written(&self) {
        self.account().head_written = true;
    }

    /// The request has no more bytes to give.
    pub fn request_whole(&self) {
        self.account().request_whole = true;
    }

    /// The response was read to its end.
    ///
    /// A read fails only after everything that was queued has been read (`tcp_recvmsg`): one that failed
    /// before this was known failed after the response all the same. A write may have failed at any time.
    pub fn response_whole(&self) {
        let mut account = self.account();
        account.response_whole = true;
        if let Some(failure) = &mut account.failure
            && failure.call != Call::Writev
        {
            failure.phase = Phase::AfterResponse;
        }
    }

    /// Whether the request's head is out.
    pub fn is_head_written(&self) -> bool {
        self.account().head_written
    }

    /// Bytes of the request's head that [`SplitWrites`](crate::SplitWrites) saw go out.
    pub fn head_bytes(&self) -> u64 {
        self.account().head_bytes
    }

    /// Whether the request has no more bytes to give.
    pub fn is_request_whole(&self) -> bool {
        self.account().request_whole
    }

    /// The first call that failed.
    pub fn failure(&self) -> Option<Failure> {
        self.account().failure
    }

    /// The first failure, if it says that a RST came.
    pub fn reset(&self) -> Option<Failure> {
        self.failure().filter(Failure::is_reset)
    }

    /// Bytes the kernel took from us.
    pub fn written_bytes(&self) -> u64 {
        self.account().written_bytes
    }

    /// How long nothing had been written before the last write; zero if there was but one.
    pub fn pause(&self) -> Duration {
        self.account().pause
    }

    /// Bytes read from the socket, heads included.
    pub fn read_bytes(&self) -> u64 {
        self.account().read_bytes
    }

    /// How far the exchange has come, from the reader's side.
    pub fn phase(&self) -> Phase {
        self.account().phase(Call::Recv)
    }
}

impl Account {
    fn phase(&self, call: Call) -> Phase {
        if self.response_whole {
            return Phase::AfterResponse;
        }
        let sending = !self.head_written || !self.request_whole;
        match call {
            Call::Writev if self.head_written => Phase::SendingBody,
            Call::Writev => Phase::SendingHead,
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
    fn reads_as_nginx_logs_it() {
        let seen = Seen::default();
        seen.failed(Call::Recv, &reset());
        assert_eq!(
            seen.failure().unwrap().to_string(),
            "recv() failed (104: Connection reset by peer)"
        );
        let seen = Seen::default();
        seen.failed(Call::Writev, &io::Error::from_raw_os_error(32));
        assert_eq!(
            seen.reset().unwrap().to_string(),
            "writev() failed (32: Broken pipe)"
        );
    }

    #[test]
    fn the_phase_is_the_one_of_the_failure() {
        let at = |steps: &[fn(&Seen)], call| {
            let seen = Seen::default();
            steps.iter().for_each(|step| step(&seen));
            seen.failed(call, &reset());
            seen.failure().unwrap().phase
        };
        assert_eq!(at(&[], Call::Writev), Phase::SendingHead);
        assert_eq!(at(&[Seen::head_written], Call::Writev), Phase::SendingBody);
        assert_eq!(at(&[Seen::head_written], Call::Recv), Phase::SendingBody);
        assert_eq!(
            at(&[Seen::head_written, Seen::request_whole], Call::Recv),
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
        let seen = Seen::default();
        seen.wrote(5);
        seen.read(b"HTTP/1.1 ");
        seen.response_whole();
        assert_eq!(seen.phase(), Phase::AfterResponse);
        seen.next_request();
        assert_eq!(seen.phase(), Phase::SendingHead);
        assert_eq!((seen.written_bytes(), seen.read_bytes()), (0, 0));
        seen.failed(Call::Recv, &reset());
        seen.next_request();
        assert!(seen.reset().is_some());
    }

    #[test]
    fn a_read_that_failed_behind_the_response_failed_after_it() {
        for (call, phase) in [
            (Call::Recv, Phase::AfterResponse),
            (Call::Writev, Phase::SendingHead),
        ] {
            let seen = Seen::default();
            seen.failed(call, &reset());
            seen.response_whole();
            assert_eq!(seen.failure().unwrap().phase, phase);
        }
    }

    #[test]
    fn a_refusal_is_no_reset() {
        let seen = Seen::default();
        seen.failed(Call::Recv, &io::Error::from_raw_os_error(110));
        assert!(seen.reset().is_none());
    }
}
