//! [`Ended`], the one owned value of how an exchange ended, and those who take it.

mod queue;
mod takers;
mod totals;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rstlab_wire::{Failure, Phase, Tape};
use serde::{Deserialize, Serialize};

use crate::evidence::{ClientSide, ServerSide};
use crate::grouped::grouped;
use crate::records::Record;
use crate::verdict::Verdict;

pub(crate) use queue::Dropped;
pub use queue::{EndedQueue, ended_queue};
pub use takers::{Taker, Takers, Wants};
pub use totals::{Labels, Summary, Total, Totals};

/// How one exchange over an upstream connection ended, as proxy or upstream saw it. There is one too if no connection
/// was made, because the proxy refused the request for example, or if the connection carried no request.
///
/// The driver of the connection makes this value from values that it owns: the facts first; the verdict is added when it
/// is known. Log, counters and records are made from this value alone, so that they cannot disagree.
#[derive(Debug)]
pub struct Ended {
    /// Number of the request at the proxy, of the connection at the upstream; from 1.
    pub number: u64,
    /// When the exchange began, on `CLOCK_MONOTONIC`.
    pub began: Duration,
    /// When the client's part in it was over, on `CLOCK_MONOTONIC`.
    pub ended: Duration,
    /// The two ends; `None` if no connection was made, or if a proxy had nothing to explain.
    pub connection: Option<Connection>,
    /// The connection had carried an exchange before.
    pub reused: bool,
    /// The client's method and path, `POST /`, if they are known.
    pub request: Option<String>,
    /// Bytes of the request's head on this connection.
    pub head_bytes: u64,
    /// How far the exchange had come, at the RST if one was met.
    pub phase: Phase,
    /// The first call that failed.
    pub failed: Option<Failure>,
    /// What the exchange brought the client.
    pub outcome: Outcome,
    /// The program that tells of the end, with the facts that it alone knows.
    pub teller: Teller,
    /// The system calls on the connection, if a taker wants records.
    pub tape: Tape,
    /// Why the exchange ended so, if there was something to explain.
    pub verdict: Option<Verdict>,
    /// The record, if a taker wants records and there was something to explain.
    pub record: Option<Arc<Record>>,
}

/// The ends of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    /// The address that accepted.
    pub server: SocketAddr,
    /// The address that connected.
    pub client: SocketAddr,
}

/// What an exchange brought the client, in the words of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, strum::Display)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum Outcome {
    /// The whole response.
    Whole,
    /// The upstream handed the whole response to the kernel; whether the client got it, the upstream does not know.
    Sent,
    /// The response ended too early.
    Truncated,
    /// No response.
    NoResponse,
    /// The client left before it had the whole response: no response was lost.
    ClientLeft,
    /// The proxy refused the request and answered itself, with 400 or 413 for example.
    Refused,
    /// No whole response: the program that tells of the end was told to stop, and its time was over.
    Abandoned,
}

/// The program that tells of an end, with the facts that it alone knows.
#[derive(Debug)]
pub enum Teller {
    /// The side that connected.
    Proxy(ProxyEnd),
    /// The side that accepted.
    Upstream(UpstreamEnd),
}

/// The facts of an exchange that only a proxy knows.
#[derive(Debug)]
pub struct ProxyEnd {
    /// The client's address.
    pub client: SocketAddr,
    /// The address that the proxy forwards to, as its setting says.
    pub upstream: String,
    /// What went wrong, in words; `failed` tells more if a call failed.
    pub trouble: Option<String>,
    /// Status of the proxy's own answer, if that took the place of a response.
    pub status: Option<u16>,
    /// Body bytes of the response that came.
    pub body_bytes: u64,
    /// Body bytes that the response announced.
    pub expected_bytes: Option<u64>,
    /// The evidence of the proxy's socket.
    pub side: ClientSide,
}

/// The facts of a connection that only an upstream knows.
#[derive(Debug)]
pub struct UpstreamEnd {
    /// The mode's name.
    pub mode: &'static str,
    /// Status and kind of the answer; `None` if no request came.
    pub answer: Option<(u16, AnswerKind)>,
    /// Bytes after the head that were read before the response, as they stood on the wire.
    pub body_bytes: u64,
    /// The evidence of the upstream's socket.
    pub side: ServerSide,
}

/// Why an upstream gave an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AnswerKind {
    /// The mode's response: the request's body was treated as the mode says.
    Response,
    /// The request was refused before its end was read: 400, 408, 413, 431, or 500 after a panic.
    Refusal,
    /// A health check, `OPTIONS *`.
    Health,
}

impl Ended {
    /// Whether the end is an exchange's: a request came, and it was no health check.
    pub fn is_exchange(&self) -> bool {
        match &self.teller {
            Teller::Proxy(_) => true,
            Teller::Upstream(end) => match end.answer {
                Some((_, kind)) => kind != AnswerKind::Health,
                None => matches!(self.outcome, Outcome::NoResponse | Outcome::Abandoned),
            },
        }
    }

    /// Whether there was a connection to the upstream.
    pub fn was_connected(&self) -> bool {
        self.connection.is_some()
    }

    /// Whether a RST ended the connection: the proxy met one, or the upstream's verdict says so.
    pub fn was_reset(&self) -> bool {
        match &self.teller {
            // A RST that refuses a connection resets none.
            Teller::Proxy(end) => end.side.reset.is_some(),
            Teller::Upstream(_) => self
                .verdict
                .as_ref()
                .is_some_and(|verdict| verdict.cause.is_reset()),
        }
    }

    /// Body bytes of a cut response that were announced and did not come.
    pub fn lost_bytes(&self) -> Option<u64> {
        match &self.teller {
            Teller::Proxy(end) if self.outcome == Outcome::Truncated => end
                .expected_bytes
                .map(|expected| expected.saturating_sub(end.body_bytes)),
            Teller::Proxy(_) | Teller::Upstream(_) => None,
        }
    }
}

impl ProxyEnd {
    /// How much of the response's body came, in words.
    pub fn progress(&self) -> String {
        let came = grouped(self.body_bytes);
        match self.expected_bytes {
            Some(expected) => format!("{came} of {} bytes", grouped(expected)),
            None => format!("{came} bytes"),
        }
    }
}

impl Outcome {
    /// The harm to the client, as it stands in a log. A client that left has come to no harm, nor has one whose request was
    /// refused: both have words of their own.
    pub fn harm(self) -> &'static str {
        match self {
            Outcome::Whole => "none",
            Outcome::ClientLeft => "left",
            Outcome::Refused => "refused",
            Outcome::Sent => "unknown",
            Outcome::Truncated => "truncated",
            Outcome::NoResponse => "no-response",
            Outcome::Abandoned => "abandoned",
        }
    }
}

/// An end that was explained, made from its record.
#[cfg(test)]
pub(crate) fn ended_with(record: Record) -> Ended {
    let side = crate::records::lazy_upstream().evidence.server;
    Ended {
        number: 1,
        began: Duration::ZERO,
        ended: Duration::ZERO,
        connection: Some(Connection {
            server: record.server,
            client: record.client,
        }),
        reused: false,
        request: record.request.clone(),
        head_bytes: 0,
        phase: Phase::ReadingBody,
        failed: None,
        outcome: Outcome::Truncated,
        teller: Teller::Upstream(UpstreamEnd {
            mode: "lazy",
            answer: Some((200, AnswerKind::Response)),
            body_bytes: 0,
            side: side.expect("an upstream's half"),
        }),
        tape: Tape::default(),
        verdict: Some(record.verdict.clone()),
        record: Some(Arc::new(record)),
    }
}
