//! What happens on a socket: seen and steered.
//!
//! *Seen*: [`Sensor`] notes each system call's outcome in a [`Seen`], and the calls themselves on a [`Tape`]; [`queues`] reads how many bytes lie
//! unread and unsent in the kernel. *Steered*: [`SplitWrites`] sends head and body in two `writev(2)` calls,
//! [`ReadOn`] goes on reading after a failed write, [`HeadGate`] stops reading after the head, [`Stall`] sets
//! the time limits, [`Framing`] spoils ambiguous requests, and [`close`] holds the ways to close. [`accept`] takes connections until told to stop.

pub mod accept;
mod causes;
mod clock;
pub mod close;
mod framing;
mod gate;
mod gather;
mod head_end;
mod pause;
pub mod queues;
mod read_on;
mod response_head;
mod seen;
mod sensor;
mod split;
mod stall;
mod tape;

pub use causes::{causes, chain};
pub use clock::{monotonic_now, nanos};
pub use framing::{Framing, MAX_HEAD_BYTES};
pub use gate::{HeadGate, Reads};
pub use gather::{GATHER_BYTES, Gather};
pub use head_end::HeadEnd;
pub use pause::Pause;
pub use read_on::{OnWriteError, ReadOn};
pub use seen::{Call, Failure, Phase, Seen, errno_text};
pub use sensor::Sensor;
pub use split::SplitWrites;
pub use stall::Stall;
pub use tape::{Began, Moment, SysCall, Tape};
