//! What the kernel's trace says of a connection's end.

use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::process::Process;
use super::reason::{Reason, State};

/// What the kernel's trace says of a connection's end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KernelWord {
    /// The RST that ended the connection.
    pub reset: Option<KernelReset>,
    /// The server's side was closed, or shut down for writing.
    pub closed: Option<KernelClose>,
    /// The thread that closed the server's side had been killed (SIGKILL).
    pub killed: bool,
    /// Events were lost, so a RST or a close may have happened that is not here.
    pub incomplete: bool,
}

/// A RST in the kernel's trace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KernelReset {
    /// When, in nanoseconds of `CLOCK_MONOTONIC`.
    pub at_ns: u64,
    /// Who sent it.
    pub from: SocketAddr,
    /// The kernel's reason; null if it gives none.
    pub reason: Option<Reason>,
    /// The state of the socket that sent it.
    pub state: Option<State>,
    /// The process whose system call sent it; null if no system call did.
    pub sender: Option<Process>,
}

/// A connection leaves ESTABLISHED or CLOSE-WAIT by a call of its owner (`inet_sock_set_state`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KernelClose {
    /// When, in nanoseconds of `CLOCK_MONOTONIC`.
    pub at_ns: u64,
    /// The state it came to.
    pub state: State,
    /// The process that made the call.
    pub by: Process,
}
