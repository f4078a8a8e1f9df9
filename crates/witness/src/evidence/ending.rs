//! How a connection ended, as its packets show it.

use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a connection ended, as far as its packets prove it.
///
/// The kernel sends a RST in one of two ways, and the flag ACK of the RST tells which:
///
/// - A call that ends the connection sends it (`tcp_send_active_reset`), with ACK: a close with unread bytes
///   (`TCP_ABORT_ON_CLOSE`), or a close with `SO_LINGER` 0 (`TCP_STATE`). The packets do not tell these two apart.
/// - It answers a segment (`tcp_v4_send_reset`, `tcp_v6_send_response`), without ACK, and its sequence number is the
///   segment's acknowledgment number. Answered are data after a close, before its FIN is acknowledged
///   (`TCP_ABORT_ON_DATA`) and afterwards, in time-wait (`TCP_TIMEWAIT_SOCKET`), and every later segment for a
///   connection that is gone. A SYN has no acknowledgment number: its answer has ACK and the sequence number 0.
///
/// RFC 9293 §3.5.2 asks the same of every TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "ending", rename_all = "kebab-case")]
pub enum Ending {
    /// The connection ended with a RST. If there were several, the fields are about the RST that decided.
    Reset {
        /// When, in nanoseconds of `CLOCK_MONOTONIC`, or since 1970 if the packets are of a file.
        at_ns: u64,
        /// Who sent it.
        from: SocketAddr,
        /// Its sequence number.
        seq: u32,
        /// The RST answers a segment; else a call sent it.
        answers: bool,
        /// The RST answers a SYN: the connection was refused. Then `answers` is true, too.
        refuses: bool,
        /// Its sender had sent a FIN.
        fin_before: bool,
        /// The FIN had been acknowledged before data came that the closed socket did not take.
        fin_acked_before: bool,
        /// Bytes of payload that were sent, before the RST, to the sender of the RST; retransmissions count once. If
        /// the capture began in the middle of the connection, the bytes since then.
        received_bytes: u64,
        /// The receiver of the RST had sent a new HTTP request after an earlier answer, and got nothing back: the
        /// keep-alive race. This is not in the JSON, because in a record the client's socket tells whether the
        /// connection was reused.
        #[serde(skip)]
        request_unanswered: bool,
        /// The capture has the SYNs and everything that either side acknowledged: no packet is missing that could tell
        /// another cause. False in older records, which do not have this field.
        #[serde(default)]
        whole: bool,
    },
    /// The connection ended with a FIN and no RST. The fields are about the first FIN.
    Closed {
        /// When, in nanoseconds of `CLOCK_MONOTONIC`, or since 1970 if the packets are of a file.
        at_ns: u64,
        /// Who sent it.
        from: SocketAddr,
        /// As `whole` of a reset.
        #[serde(default)]
        whole: bool,
    },
    /// Neither a RST nor a FIN was captured.
    Open,
}

impl Ending {
    /// Whether packets are missing that could tell another cause.
    pub fn is_of_a_part(&self) -> bool {
        matches!(
            self,
            Self::Reset { whole: false, .. } | Self::Closed { whole: false, .. }
        )
    }
}
