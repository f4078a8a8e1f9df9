//! One trial: what the client does, how the trial ended, and the system call that failed.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{AsRefStr, EnumMessage, VariantArray};

use super::reasons::Made;

/// How a trial ended: each ends as exactly one of these. The documentation of each is the schema's description.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, AsRefStr, VariantArray, EnumMessage,
)]
pub enum TrialOutcome {
    /// The response came whole; a FIN followed, or the connection stayed open.
    #[strum(serialize = "whole-then-FIN")]
    WholeThenFin,
    /// The response came whole, then a reset: harmless.
    #[strum(serialize = "whole-then-reset")]
    WholeThenReset,
    /// A reset cut the response.
    #[strum(serialize = "truncated-by-reset")]
    TruncatedByReset,
    /// The stream ended in the middle of the response, without a reset. Without a length a client can't notice it.
    #[strum(serialize = "truncated-by-EOF")]
    TruncatedByEof,
    /// A reset came before a whole head.
    #[strum(serialize = "no-response-reset")]
    NoResponseReset,
    /// The stream ended before a whole head.
    #[strum(serialize = "no-response-EOF")]
    NoResponseEof,
    /// The time limit came first.
    #[strum(serialize = "timeout")]
    Timeout,
    /// 502, 503 or 504 came whole in place of the answer: something in between did not get it.
    #[strum(serialize = "gateway-error")]
    GatewayError,
    /// The bytes that came are not HTTP, have no end, or answer a request that was not sent.
    #[strum(serialize = "bad-response")]
    BadResponse,
}

impl TrialOutcome {
    /// The client got its response.
    pub const fn is_whole(self) -> bool {
        matches!(self, Self::WholeThenFin | Self::WholeThenReset)
    }

    /// The client did not get its response: the connection ended too early, a gateway's error came in its place, or the
    /// bytes that came are no response.
    pub const fn is_lost(self) -> bool {
        !self.is_whole() && !matches!(self, Self::Timeout)
    }

    /// A reset came, harmful or not.
    pub const fn is_reset(self) -> bool {
        matches!(
            self,
            Self::WholeThenReset | Self::TruncatedByReset | Self::NoResponseReset
        )
    }
}

/// How a client reads, and what it does when sending fails.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    JsonSchema,
    AsRefStr,
    VariantArray,
)]
#[serde(rename_all = "kebab-case")]
pub enum Model {
    /// It has the system's buffers, reads what comes at once, also while it sends, and reads on if sending fails. Once it
    /// has the response it sends no more (RFC 9112 §9.5).
    #[strum(serialize = "ordinary")]
    Ordinary,
    /// It reads late, and reads on if sending fails: the answer may be in the receive queue.
    #[strum(serialize = "reads on")]
    ReadsOn,
    /// It reads late, and gives up as soon as sending fails, as nginx and Envoy do.
    #[strum(serialize = "stops")]
    StopsAtWriteError,
}

impl Model {
    /// It has a small receive buffer and sends everything before it reads, so that a reset can cut the response.
    pub const fn reads_late(self) -> bool {
        !matches!(self, Self::Ordinary)
    }
}

/// What the requests say about the connection.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    JsonSchema,
    AsRefStr,
    VariantArray,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum ConnectionUse {
    /// Nothing: the server may keep it (RFC 9112 §9.3). Proxies with keep-alive to the server ask so.
    Kept,
    /// `Connection: close`, as nginx asks by its defaults; a request of HTTP/1.0 means the same.
    Close,
}

/// Statuses that say nothing about the path's own answer: the client lacks credentials (401, RFC 9110 §15.5.2), or sends
/// too much (429, RFC 6585 §4).
pub(super) const fn is_turned_away(status: u16) -> bool {
    matches!(status, 401 | 429)
}

/// What came of one trial.
#[derive(Debug, Clone)]
pub(super) struct Trial {
    pub(super) outcome: TrialOutcome,
    /// Status of the first response, if its head came, or of a later one that is not as expected.
    pub(super) status: Option<u16>,
    /// The status is another one than is expected.
    pub(super) is_other_status: bool,
    /// The response to the first request came whole, and that to the next one was lost.
    pub(super) is_next_lost: bool,
    /// A pause of the client was much longer than asked for: this machine was busy.
    pub(super) is_late: bool,
    /// Bytes of response bodies that came.
    pub(super) body_bytes: u64,
    /// Bytes of the cut response that were announced and did not come.
    pub(super) lost_bytes: u64,
    /// The responses were in the client's receive queue before reading began: no reset could have taken them.
    pub(super) fits: bool,
    /// After a whole response: neither FIN nor reset came while the client watched.
    pub(super) still_open: bool,
    /// The first system call that failed.
    pub(super) failure: Option<FailedCall>,
    /// What was bad about a bad response.
    pub(super) bad: Option<String>,
    /// Its connection, on TCP.
    pub(super) made: Option<Made>,
    /// Time from connecting to the first byte of a response.
    pub(super) first_byte: Option<Duration>,
    /// The first bytes of the response's body.
    pub(super) beginning: Box<[u8]>,
}

impl Trial {
    /// A trial of which nothing but the outcome is known.
    pub(super) fn new(outcome: TrialOutcome) -> Self {
        Self {
            outcome,
            status: None,
            is_other_status: false,
            is_next_lost: false,
            is_late: false,
            body_bytes: 0,
            lost_bytes: 0,
            fits: false,
            still_open: false,
            failure: None,
            bad: None,
            made: None,
            first_byte: None,
            beginning: Box::default(),
        }
    }
}

/// A system call that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FailedCall {
    pub(super) call: SocketCall,
    /// Its error number.
    pub(super) errno: i32,
    /// Time since the connection began.
    pub(super) after: Duration,
}

/// A system call on a client's socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub enum SocketCall {
    /// Opens the connection.
    #[serde(rename = "connect()")]
    Connect,
    /// Reads.
    #[serde(rename = "recv()")]
    Receive,
    /// Writes.
    #[serde(rename = "send()")]
    Send,
    /// Ends the client's side.
    #[serde(rename = "shutdown()")]
    Shutdown,
    /// Asks for the error that no other call has reported.
    #[serde(rename = "getsockopt(SO_ERROR)")]
    SocketError,
}
