//! The events of the kernel's trace that tell of a connection's end.

use std::net::SocketAddr;

use rstlab_wire::nanos;

use super::stamp::Stamp;
use crate::evidence::{KernelReset, Process, Reason, State};

/// One RST that this machine sent, as `tcp:tcp_send_reset` tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResetEvent {
    /// When, and which thread ran.
    pub stamp: Stamp,
    /// Whether the thread sent the RST in a system call of its own. If not, the RST answers a segment or a
    /// timer, and the thread only happened to run there: on loopback it is often the *peer*.
    pub own_call: bool,
    /// The address that the RST comes from; IPv4-mapped addresses are given as IPv4. In the state LISTEN this is the
    /// address that the listening socket is bound to, which may be the unspecified one.
    pub source: SocketAddr,
    /// The address that it goes to; `None` in the state LISTEN, where the kernel prints the peer of the listening
    /// socket, which has none.
    pub destination: Option<SocketAddr>,
    /// State of the socket, if the kernel tells it.
    pub state: Option<State>,
    /// The reason, if the kernel tells it.
    pub reason: Option<Reason>,
}

impl ResetEvent {
    /// The process that sent the RST in a system call of its own; else `None` rather than a wrong name.
    pub fn sender(&self) -> Option<Process> {
        self.own_call.then(|| self.stamp.process())
    }

    /// The RST as evidence.
    pub(super) fn evidence(&self) -> KernelReset {
        KernelReset {
            at_ns: nanos(self.stamp.time),
            from: self.source,
            reason: self.reason.clone(),
            state: self.state.clone(),
            sender: self.sender(),
        }
    }
}

/// A side of a connection leaves ESTABLISHED or CLOSE-WAIT, as `sock:inet_sock_set_state` tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloseEvent {
    /// When, and which thread ran.
    pub stamp: Stamp,
    /// The side that was closed, or shut down for writing.
    pub side: SocketAddr,
    /// The other side.
    pub peer: SocketAddr,
    /// The state it came to: FIN-WAIT-1 or LAST-ACK with a FIN, CLOSED with a RST.
    pub state: State,
}

/// A thread was killed, as `signal:signal_deliver` tells it of SIGKILL: of a killed process, each thread. A process
/// that another signal ends, as it does not handle it, is killed in the same way (`complete_signal`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KillEvent {
    /// When, and which thread.
    pub(super) stamp: Stamp,
}
