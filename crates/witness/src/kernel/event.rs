use std::net::SocketAddr;

use crate::{Process, Reason, Stamp, State};

/// One RST that this machine sent, as `tcp:tcp_send_reset` tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResetEvent {
    /// When, and which thread ran.
    pub stamp: Stamp,
    /// Whether the thread sent the RST in a system call of its own. If not, the RST answers a segment or a
    /// timer, and the thread only happened to run there: on loopback it is often the *peer*.
    pub own_call: bool,
    /// Whom the RST comes from; IPv4-mapped addresses are told as IPv4. For a RST in the state LISTEN this is the
    /// listening socket's own address, which may be the unspecified one.
    pub source: SocketAddr,
    /// Whom it goes to; `None` in the state LISTEN, where the kernel prints the listening socket's peer, which it
    /// does not have.
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
}

/// A side of a connection leaves ESTABLISHED or CLOSE-WAIT, as `sock:inet_sock_set_state` tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloseEvent {
    /// When, and which thread ran.
    pub stamp: Stamp,
    /// The side that was closed, or shut down for writing.
    pub side: SocketAddr,
    /// The other one.
    pub peer: SocketAddr,
    /// What it came to: FIN-WAIT-1 or LAST-ACK with a FIN, CLOSED with a RST.
    pub state: State,
}

/// A thread was killed, as `signal:signal_deliver` tells it of SIGKILL: of a killed process, each thread. A process that
/// another signal ends, as it does not handle it, is killed in the same way (`complete_signal`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KillEvent {
    /// When, and which thread.
    pub stamp: Stamp,
}
