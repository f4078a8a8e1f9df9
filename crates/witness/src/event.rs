use std::net::SocketAddr;
use std::time::Duration;

use crate::{Process, Reason, State};

/// One RST that this machine sent, as `tcp:tcp_send_reset` tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResetEvent {
    /// When, on `CLOCK_MONOTONIC`.
    pub time: Duration,
    /// Name of the thread that ran; `None` where the kernel has forgotten it.
    pub comm: Option<String>,
    /// The thread that ran.
    pub pid: u32,
    /// The process of that thread, if the kernel tells it.
    pub process: Option<u32>,
    /// The processor it ran on.
    pub cpu: u32,
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
    ///
    /// The kernel learns a thread's name and process when it stops running, often after we have read the line:
    /// `/proc` says it then, if the thread still lives.
    pub fn sender(&self) -> Option<Process> {
        self.own_call
            .then(|| Process::of_thread(self.pid, self.process, self.comm.clone()))
    }
}
