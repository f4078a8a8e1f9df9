use std::time::Duration;

use rstlab_wire::{Moment, SysCall, nanos};
use serde::{Deserialize, Serialize};

use crate::{Process, Reason, Side, State};

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lane {
    /// The one who asked.
    Client,
    /// The proxy.
    Proxy,
    /// Between proxy and upstream.
    Wire,
    /// The upstream.
    Upstream,
    /// The kernel, by its own word.
    Kernel,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum What {
    /// A system call.
    Call {
        /// Which.
        call: SysCall,
        /// What it returned: bytes, or zero. Absent if it failed.
        returned: Option<u64>,
        /// Its error number, if it failed.
        errno: Option<i32>,
    },
    /// A TCP segment.
    Packet {
        /// Who sent it.
        from: Side,
        /// As tcpdump writes them: `P.`
        flags: String,
        /// Its bytes.
        payload_bytes: u32,
        /// Number of its first byte, counted from the sender's SYN; the first byte of data is 1.
        seq: u32,
    },
    /// The kernel sent a RST.
    Reset {
        /// Who sent it.
        from: Side,
        /// Why.
        reason: Option<Reason>,
        /// In which state its socket was.
        state: Option<State>,
    },
    /// A call of its owner took a side out of ESTABLISHED or CLOSE-WAIT.
    Closed {
        /// Which side.
        from: Side,
        /// The state it came to.
        state: State,
        /// Whose call.
        by: Process,
    },
    /// A process was killed (SIGKILL).
    Killed {
        /// Which.
        process: Process,
    },
    /// Anything else, in words. At the very moment of a call in the same lane it is a remark on that call: `head`.
    Note {
        /// The words.
        text: String,
    },
}

impl Event {
    /// A call, as a tape has it.
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
}

impl Event {
    /// Something in words, at a time of `CLOCK_MONOTONIC`.
    pub fn note(at: Duration, lane: Lane, text: String) -> Self {
        Self {
            at_ns: nanos(at),
            lane,
            what: What::Note { text },
        }
    }
}
