//! What happened on a connection, moment by moment.

use std::time::Duration;

use rstlab_wire::{Moment, SysCall, nanos};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::VariantArray;

use super::process::Process;
use super::reason::{Reason, State};
use super::side::Side;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// When, in nanoseconds of `CLOCK_MONOTONIC`.
    pub at_ns: u64,
    /// Where.
    pub lane: Lane,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// Where something happened.
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
    JsonSchema,
    VariantArray,
)]
#[serde(rename_all = "kebab-case")]
pub enum Lane {
    /// The client that asked the proxy.
    Client,
    /// The proxy.
    Proxy,
    /// Between proxy and upstream.
    Wire,
    /// The upstream.
    Upstream,
    /// The kernel's trace.
    Kernel,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum What {
    /// A system call.
    Call {
        /// Which call.
        call: SysCall,
        /// The bytes that it returned, or zero; null if it failed.
        returned: Option<u64>,
        /// Its error number; null if it did not fail.
        errno: Option<i32>,
    },
    /// A TCP segment.
    Packet {
        /// Who sent it.
        from: Side,
        /// Its flags as tcpdump writes them: `P.`
        flags: String,
        /// Its bytes of payload.
        payload_bytes: u32,
        /// Number of its first byte, counted from the sender's SYN; the first byte of data is 1.
        seq: u32,
    },
    /// The kernel sent a RST.
    Reset {
        /// Who sent it.
        from: Side,
        /// The kernel's reason; null if it gives none.
        reason: Option<Reason>,
        /// The state of the socket that sent it; null if the kernel does not tell.
        state: Option<State>,
    },
    /// A side was closed, or shut down for writing: a call took it out of ESTABLISHED or CLOSE-WAIT.
    Closed {
        /// Which side.
        from: Side,
        /// The state it came to.
        state: State,
        /// The process that made the call.
        by: Process,
    },
    /// A process was killed (SIGKILL).
    Killed {
        /// Which process.
        process: Process,
    },
    /// A note in words. A note at the very moment of a call in the same lane is about that call: `head`.
    Note {
        /// The words.
        text: String,
    },
}

impl What {
    /// The bytes of its texts that may be long.
    pub(crate) fn text_bytes(&self) -> usize {
        match self {
            Self::Note { text } => text.len(),
            Self::Packet { flags, .. } => flags.len(),
            Self::Call { .. } | Self::Reset { .. } | Self::Closed { .. } | Self::Killed { .. } => 0,
        }
    }
}

impl Event {
    /// A call that a tape recorded.
    pub fn call(lane: Lane, moment: &Moment) -> Self {
        Self {
            at_ns: nanos(moment.at),
            lane,
            what: What::Call {
                call: moment.call,
                returned: moment.returned.ok(),
                errno: moment.returned.err(),
            },
        }
    }

    /// A note, at a time of `CLOCK_MONOTONIC`.
    pub fn note(at: Duration, lane: Lane, text: String) -> Self {
        Self {
            at_ns: nanos(at),
            lane,
            what: What::Note { text },
        }
    }
}
