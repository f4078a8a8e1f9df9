//! `rstlab watch`: says of each RST on this machine why it was sent, as the kernel's trace or the packets tell it.

mod args;
mod by_kernel;
mod by_packets;
mod missing;
mod note;
mod requests;
mod run;
mod source;
mod tally;
mod text;
mod watched_reset;

pub use args::{WatchArgs, WatchConfig};
pub use missing::Missing;
pub use run::{WatchSummary, execute, run};
pub use tally::Tally;
pub use watched_reset::WatchedReset;
