//! How much is missing in the output of `rstlab watch`.

use std::fmt;

use rstlab_witness::Lost;

/// How much is missing in the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// In the kernel's trace.
    Kernel {
        /// Events that the kernel had no room for. The kernel does not tell which.
        lost_events: u64,
        /// Lines of the trace that could not be read.
        bad_lines: u64,
    },
    /// In the capture.
    Packets(Lost),
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel {
                lost_events,
                bad_lines,
            } => write!(
                f,
                "lost events: {lost_events}, unreadable lines: {bad_lines}"
            ),
            Self::Packets(Lost { packets, resets }) => {
                write!(f, "lost resets: {resets}, lost other packets: {packets}")
            }
        }
    }
}
