//! What the end-to-end tests share: the real programs as processes, and a client that says how a response ended.

mod client;
mod ours;
mod program;
mod strace;
mod tracefs;

pub use client::{End, Reply, connect, exchange, post_head, read_reply};
pub use ours::{Server, binary, proxy, proxy_command, upstream};
pub use program::{Ended, Program, field};
pub use strace::strace_calls;
pub use tracefs::trace_instances;

use std::time::Duration;

/// The longest wait for anything that should happen at once: long enough for a busy machine.
pub const LIMIT: Duration = Duration::from_secs(30);
