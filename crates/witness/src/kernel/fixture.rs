//! An event as the kernel tells it, for tests.

use std::net::SocketAddr;
use std::time::Duration;

use super::event::ResetEvent;
use super::stamp::Stamp;
use crate::evidence::{Reason, State};

/// When and where a thread did something in a system call of its own.
pub(super) fn stamp(pid: u32, time: Duration) -> Stamp {
    Stamp {
        time,
        comm: None,
        pid,
        process: None,
        cpu: 0,
        in_interrupt: false,
    }
}

/// A RST that answers a segment.
pub(super) fn reset_event(
    millis: u64,
    source: SocketAddr,
    destination: Option<SocketAddr>,
    reason: Reason,
    state: State,
) -> ResetEvent {
    ResetEvent {
        stamp: Stamp {
            in_interrupt: true,
            ..stamp(1, Duration::from_millis(millis))
        },
        own_call: false,
        source,
        destination,
        state: Some(state),
        reason: Some(reason),
    }
}
