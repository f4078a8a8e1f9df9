//! Evidence for tests.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use rstlab_wire::close::{Closed, Peer};
use rstlab_wire::{Call, Failure, Phase};

use crate::evidence::{ClientSide, KernelReset, KernelWord, Reason, ServerSide, State};

pub(super) const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8000);
pub(super) const CLIENT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4000);

/// A client that had read a part of its response; with the error of the call that failed.
pub(super) fn client(errno: Option<i32>) -> Option<ClientSide> {
    Some(ClientSide {
        reset: errno.map(|errno| Failure {
            call: Call::Recv,
            errno,
            phase: Phase::ReadingBody,
        }),
        read_bytes: 1000,
        ..ClientSide::default()
    })
}

/// A server that told of its queue before it closed by itself.
pub(super) fn server(unread_bytes: u64) -> Option<ServerSide> {
    Some(ServerSide {
        closed: Closed {
            unread_bytes,
            unsent_bytes: 0,
            lingered_bytes: 0,
            peer: Peer::Open,
        },
        linger_zero: false,
        killed: false,
        response_whole: true,
    })
}

/// A RST in the kernel's trace.
pub(super) fn kernel(from: SocketAddr, reason: Option<Reason>, state: State) -> Option<KernelWord> {
    Some(KernelWord {
        reset: Some(KernelReset {
            at_ns: 1,
            from,
            reason,
            state: Some(state),
            sender: None,
        }),
        ..KernelWord::default()
    })
}
