//! What all tests share: peers that write exact bytes, the real programs as processes, clients that say how a response
//! ended, and checks of what the programs print.

mod answer;
mod client;
mod ours;
mod peer;
mod program;
mod report;
mod strace;
mod tracefs;

pub use answer::{Answer, read_exactly, read_head, read_to_end, try_read_head};
pub use client::{Reply, connect, exchange, post_head, read_reply};
pub use ours::{
    Server, binary, for_everybody, proxy, proxy_command, rstlab, rstlab_output, upstream,
};
pub use peer::{
    Peer, PeerEnd, content_length, cut, head_field, read_request, until_sent, until_unread,
};
pub use program::{ChildProgram, InTime, ProgramEnd, field, processes_of};
pub use report::{assert_contains, check_schema, json_lines, schema, text, words};
pub use strace::strace_calls;
pub use tracefs::{instances_of, trace_instances};

use std::time::Duration;

use tokio::time::timeout;

/// The longest wait for an event that should come at once. The limit is far longer than any such event takes, so that a
/// busy machine passes, and a broken program fails instead of hanging.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Waits for a future that must complete.
///
/// # Panics
/// The future does not complete within [`LIMIT`].
pub async fn soon<F: Future>(future: F) -> F::Output {
    timeout(LIMIT, future).await.expect("it does not come")
}
