//! The kernel's trace of resets: read line by line, told as a stream, and remembered for each connection.

mod event;
#[cfg(test)]
mod fixture;
mod format;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod history;
mod killed;
mod ledger;
mod line;
mod pipe;
mod stamp;
mod trace;
mod tracefs;
mod witness;

pub use event::{CloseEvent, ResetEvent};
pub use format::Format;
pub use history::{KernelStory, Subject};
pub use line::BadLine;
pub use pipe::Scope;
pub use stamp::Stamp;
pub use trace::{KernelTrace, TraceEvent, TracedClose, TracedReset};
pub use witness::KernelWitness;
