//! An event as the kernel tells it, for tests.

use std::net::SocketAddr;
use std::time::Duration;

use crate::{Reason, ResetEvent, Stamp, State};

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
            time: Duration::from_millis(millis),
            comm: None,
            pid: 1,
            process: None,
            cpu: 0,
            in_interrupt: true,
        },
        own_call: false,
        source,
        destination,
        state: Some(state),
        reason: Some(reason),
    }
}
