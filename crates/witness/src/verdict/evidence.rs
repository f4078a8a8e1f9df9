use std::net::SocketAddr;

use rstlab_wire::Failure;
use rstlab_wire::close::{Closed, Peer};
use serde::{Deserialize, Serialize};

use crate::{Counters, Ending, Process, Reason, State};

/// What is known of a connection's end, by where it is known from, weakest first.
///
/// *Client* is the side that connected (the proxy), *server* the one that accepted (the upstream).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// The client's socket.
    pub client: Option<ClientSide>,
    /// The server's socket, if the server tells.
    pub server: Option<ServerSide>,
    /// The counters of the namespace.
    pub counted: Option<Counted>,
    /// The packets.
    pub packets: Option<Ending>,
    /// The kernel's trace.
    pub kernel: Option<KernelWord>,
}

impl Evidence {
    /// Whether somebody saw a RST: one of the two, the packets or the kernel.
    pub fn reset_was_seen(&self) -> bool {
        self.client.is_some_and(|client| client.reset.is_some())
            || matches!(self.packets, Some(Ending::Reset { .. }))
            || self
                .kernel
                .as_ref()
                .is_some_and(|kernel| kernel.reset.is_some())
            || self.server_was_reset()
    }

    /// Whether a RST had come to the server when it closed.
    pub(crate) fn server_was_reset(&self) -> bool {
        self.server
            .is_some_and(|server| server.closed.peer == Peer::Reset)
    }

    /// Whether a RST was seen, or the server knows of one that it must have sent or of a response that it cut.
    pub fn is_conclusive(&self) -> bool {
        self.reset_was_seen()
            || self.server.is_some_and(|server| {
                server.closed.unread_bytes > 0 || server.linger_zero || !server.response_whole
            })
    }
}

/// What the client's socket showed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientSide {
    /// The call that told of a RST.
    pub reset: Option<Failure>,
    /// Bytes of this request that the kernel took.
    pub written_bytes: u64,
    /// Nothing had been written for so long before the last write, in nanoseconds.
    pub pause_ns: u64,
    /// Bytes of its response that came, heads included.
    pub read_bytes: u64,
    /// The response was whole.
    pub response_whole: bool,
    /// The connection had carried an exchange before.
    pub reused: bool,
}

/// What the server's socket showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerSide {
    /// Its queues and its peer right before the close.
    pub closed: Closed,
    /// It closed with `SO_LINGER` zero.
    pub linger_zero: bool,
    /// The process that answered was killed.
    pub killed: bool,
    /// Everything that was announced to the client was sent.
    pub response_whole: bool,
}

/// What the counters did between the connection's beginning and its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// The change.
    pub change: Counters,
    /// No other connection of ours lived at that time: the change can be this one's.
    pub alone: bool,
}

/// What the kernel's trace says of a connection's end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelWord {
    /// The RST that decided.
    pub reset: Option<KernelReset>,
    /// The server's side was closed, or shut down for writing.
    pub closed: Option<KernelClose>,
    /// The thread that closed the server's side had been killed (SIGKILL).
    pub killed: bool,
    /// Events were lost: what is not here may have happened all the same.
    pub incomplete: bool,
}

/// A RST, as the kernel tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelReset {
    /// When, in nanoseconds of `CLOCK_MONOTONIC`.
    pub at_ns: u64,
    /// Who sent it.
    pub from: SocketAddr,
    /// Why; `None` on a kernel that does not tell.
    pub reason: Option<Reason>,
    /// In which state its socket was.
    pub state: Option<State>,
    /// The process whose system call sent it.
    pub sender: Option<Process>,
}

/// A connection leaves ESTABLISHED or CLOSE-WAIT by a call of its owner (`inet_sock_set_state`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelClose {
    /// When, in nanoseconds of `CLOCK_MONOTONIC`.
    pub at_ns: u64,
    /// The state it came to.
    pub state: State,
    /// Whose call it was.
    pub by: Process,
}
