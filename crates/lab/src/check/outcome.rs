use std::time::Duration;

use serde::Serialize;

use super::reasons::Made;

/// How a trial ended: each ends as exactly one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Every byte of the response came, and no reset. The connection may still be open.
    WholeThenFin,
    /// Every byte of the response came, and then a reset: harmless.
    WholeThenReset,
    /// A reset cut the response.
    TruncatedByReset,
    /// The stream ended in the middle of the response, without a reset. Without a length nobody sees it.
    TruncatedByEof,
    /// A reset, and not even a head.
    NoResponseReset,
    /// The end of the stream, and not even a head.
    NoResponseEof,
    /// The time limit came first.
    Timeout,
    /// What came is not HTTP, is endless, or answers something that was not asked.
    BadResponse,
}

impl Outcome {
    /// All of them, in the order of reports.
    pub const ALL: [Self; 8] = [
        Self::WholeThenFin,
        Self::WholeThenReset,
        Self::TruncatedByReset,
        Self::TruncatedByEof,
        Self::NoResponseReset,
        Self::NoResponseEof,
        Self::Timeout,
        Self::BadResponse,
    ];

    /// Its name in reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WholeThenFin => "whole-then-FIN",
            Self::WholeThenReset => "whole-then-reset",
            Self::TruncatedByReset => "truncated-by-reset",
            Self::TruncatedByEof => "truncated-by-EOF",
            Self::NoResponseReset => "no-response-reset",
            Self::NoResponseEof => "no-response-EOF",
            Self::Timeout => "timeout",
            Self::BadResponse => "bad-response",
        }
    }

    /// The client did not get its response: the connection ended too early, or what came is no response to it.
    pub const fn is_lost(self) -> bool {
        matches!(
            self,
            Self::TruncatedByReset
                | Self::TruncatedByEof
                | Self::NoResponseReset
                | Self::NoResponseEof
                | Self::BadResponse
        )
    }
}

/// What a client does when sending fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Model {
    /// Goes on reading: the answer may lie in the queue.
    ReadsOn,
    /// Gives up at once, as nginx and Envoy do.
    StopsAtWriteError,
}

impl Model {
    /// Both.
    pub const ALL: [Self; 2] = [Self::ReadsOn, Self::StopsAtWriteError];

    /// Its name in a table.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ReadsOn => "reads on",
            Self::StopsAtWriteError => "stops",
        }
    }
}

/// One trial in the books.
#[derive(Debug, Clone)]
pub(super) struct Trial {
    pub(super) outcome: Outcome,
    /// Status of the first response, if its head came.
    pub(super) status: Option<u16>,
    /// Bytes of response bodies that came.
    pub(super) body_bytes: u64,
    /// Bytes of the response that was cut that were announced and did not come.
    pub(super) lost_bytes: u64,
    /// The responses were in the kernel's queue before reading began: no reset could have taken them.
    pub(super) fits: bool,
    /// After a whole response: neither FIN nor reset came while we watched.
    pub(super) still_open: bool,
    /// The first system call that failed.
    pub(super) failure: Option<Failure>,
    /// What was bad about a bad response.
    pub(super) bad: Option<String>,
    /// Its connection, on TCP.
    pub(super) made: Option<Made>,
    /// From connecting to the first byte of a response.
    pub(super) first_byte: Option<Duration>,
    /// The first bytes of the response's body.
    pub(super) beginning: Box<[u8]>,
}

/// A system call that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Failure {
    /// `connect()`, `recv()`, `send()`, `shutdown()` or `getsockopt(SO_ERROR)`.
    pub(super) call: &'static str,
    /// Its error number.
    pub(super) errno: i32,
    /// Since the connection began.
    pub(super) after: Duration,
}
