//! The verdict: a cause, how it is known, and the judgement that finds both in the evidence.

mod cause;
mod evidence;
mod judge;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Reason;

pub use cause::Cause;
pub use evidence::{
    ClientSide, Counted, Evidence, KernelClose, KernelReset, KernelWord, ServerSide,
};

/// How a cause is known, from weak to strong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Known {
    /// From the sockets alone, or from counters that more than one connection moved.
    Inferred,
    /// The namespace's counters say it, and nobody else moved them.
    Counted,
    /// The kernel's reason or the packets say it.
    Proved,
}

impl Known {
    /// As it stands in a log.
    pub fn as_str(self) -> &'static str {
        match self {
            Known::Inferred => "inferred",
            Known::Counted => "counted",
            Known::Proved => "proved",
        }
    }
}

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// Who connected: the proxy.
    Client,
    /// Who accepted: the upstream.
    Server,
}

/// Why a connection ended as it did, and how that is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Why.
    pub cause: Cause,
    /// How that is known.
    pub known: Known,
    /// Who sent the RST, as far as it is known; `None` also where there was none.
    pub sent_by: Option<Side>,
    /// The kernel's reason.
    pub reason: Option<Reason>,
    /// Bytes that lay unread when the server closed, as the server told.
    pub unread_bytes: Option<u64>,
    /// Where the evidence disagrees: how. The cause is then unknown.
    pub disagreement: Option<String>,
}
