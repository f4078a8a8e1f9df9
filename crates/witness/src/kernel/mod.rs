//! The kernel's own word on resets: its tracepoints, read line by line, and what they say of one connection.

mod event;
mod first;
#[cfg(test)]
mod fixture;
mod format;
mod killed;
mod line;
mod reason;
mod stamp;
mod trace;
mod tracefs;
mod witness;

pub use event::{CloseEvent, KillEvent, ResetEvent};
pub use first::{Judged, Ledger, Place};
pub use format::Format;
pub use killed::Killed;
pub use line::{BadLine, Line};
pub use reason::{Reason, State};
pub use stamp::Stamp;
pub use trace::{Kernel, Scope};
pub use witness::{KernelStory, KernelWitness, Subject};
