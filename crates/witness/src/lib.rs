//! Why a reset happened: what the kernel counts, what it says of each RST it sends, and what that means.
//!
//! [`Counters`] needs no privilege and tells how many, not which. [`Kernel`] needs root and a mounted tracefs:
//! it gives a [`ResetEvent`] for every RST that this machine sends, in all network namespaces, with the kernel's
//! own [`Reason`]. A [`Ledger`] tells the RST that decided a connection from its echoes, [`Cause`] puts the
//! reason into words, and [`Owners`] finds who listens on the port it came from.

mod cause;
mod counters;
mod event;
mod first;
mod format;
mod kernel;
mod line;
mod owner;
mod process;
mod reason;
mod tracefs;

pub use cause::Cause;
pub use counters::Counters;
pub use event::ResetEvent;
pub use first::{Judged, Ledger, Place};
pub use format::Format;
pub use kernel::Kernel;
pub use line::{BadLine, Line};
pub use owner::{Owner, Owners};
pub use process::Process;
pub use reason::{Reason, State};
pub use rstlab_wire::monotonic_now;
pub use tracefs::Unavailable;
