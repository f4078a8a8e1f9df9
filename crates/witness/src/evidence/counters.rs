//! The kernel's counters of resets, and how much they moved while a connection lived.

use std::ops::Sub;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The kernel's counters of resets, in this network namespace, of all connections.
///
/// They tell how many resets there were, not of which connections.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub struct Counters {
    /// `TCPAbortOnClose`: closed while bytes lay unread (`tcp_close`).
    pub abort_on_close: u64,
    /// `TCPAbortOnData`: bytes came after the close (`tcp_rcv_state_process`); a close with `SO_LINGER`
    /// zero counts here too (`tcp_close`).
    pub abort_on_data: u64,
    /// `TCPAbortOnLinger`: closed with `TCP_LINGER2` below zero, so that no FIN was waited for.
    pub abort_on_linger: u64,
    /// `OutRsts`: RSTs sent, for whatever reason, echoes and refused connections among them.
    pub resets_sent: u64,
    /// `EstabResets`: connections that left ESTABLISHED or CLOSE-WAIT by an abort, on either side.
    pub connections_aborted: u64,
}

/// How much the counters moved between the connection's beginning and its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Counted {
    /// The change.
    pub change: Counters,
    /// No other connection of ours lived at that time: the change can be this one's.
    pub alone: bool,
}

impl Counters {
    /// Whether a change of `TCPAbortOnData` comes from closes with `SO_LINGER` zero, rather than from bytes after
    /// a close.
    ///
    /// A close with `SO_LINGER` zero takes the server out of ESTABLISHED, and its RST the client; a server that got
    /// bytes after its close had left ESTABLISHED before. So `EstabResets` moves by two or by one (`tcp_set_state`), if
    /// both ends are in this namespace: 50 connections of each kind moved it by 100 and by 50.
    pub(crate) fn tells_linger_zero(&self) -> bool {
        // If many connections end at once, the change may hold only one end of some of them.
        self.connections_aborted.saturating_mul(2) >= self.abort_on_data.saturating_mul(3)
    }
}

/// How much the counters moved between two readings.
impl Sub for Counters {
    type Output = Counters;

    fn sub(self, earlier: Self) -> Self {
        let Self {
            abort_on_close,
            abort_on_data,
            abort_on_linger,
            resets_sent,
            connections_aborted,
        } = earlier;
        Self {
            abort_on_close: self.abort_on_close.saturating_sub(abort_on_close),
            abort_on_data: self.abort_on_data.saturating_sub(abort_on_data),
            abort_on_linger: self.abort_on_linger.saturating_sub(abort_on_linger),
            resets_sent: self.resets_sent.saturating_sub(resets_sent),
            connections_aborted: self.connections_aborted.saturating_sub(connections_aborted),
        }
    }
}
