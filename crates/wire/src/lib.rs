//! Observes and changes what happens on a socket.
//!
//! *Observes*: [`Sensor`] notes each system call's result in a [`Seen`], and the calls themselves on a [`Tape`];
//! [`queues`] asks how many bytes lie unread and unsent in the kernel. *Changes*: [`SplitWrites`] sends head and body in
//! two `writev(2)` calls, [`ReadOn`] goes on reading after a failed write, [`HeadGate`] stops reading after the head,
//! [`Stall`] sets the time limits, [`Backpressure`] holds a body back and [`Flushes`] feeds it, [`Framing`] and
//! [`Guarded`] refuse messages that can be read in two ways (they follow the messages with [`Messages`], as all that read
//! HTTP/1.1 do), [`Pipe`] and [`PipeOut`] move a body from socket to socket in the kernel, and [`close`] holds the ways to close. [`workers`] starts the threads that serve a listener, [`accept`]
//! accepts connections until the [`StopOrder`], [`Slots`] has idle clients close if descriptors run short.

pub mod accept;
mod backpressure;
mod causes;
mod clock;
pub mod close;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod gate;
mod gather;
mod guarded;
mod message;
mod pause;
mod pipe;
pub mod queues;
mod read_on;
mod seen;
mod sensor;
mod slots;
mod split;
mod stall;
mod stop_order;
mod tape;
pub mod workers;
mod wrapper;

pub use backpressure::{Backpressure, Flushes, poll_read_up_to};
pub use causes::{causes, chain};
pub use clock::{monotonic_now, nanos};
pub use gate::{HeadGate, Reads};
pub use gather::{GATHER_BYTES, GATHERED_READ_BYTES, Gather};
pub use guarded::Guarded;
pub use message::{
    BodyFraming, Direction, Followed, Framing, HeadEnd, MAX_HEAD_BYTES, Malformed, MessageHead,
    MessagePart, Messages, is_beginning_of_request,
};
pub use pause::Pause;
pub use pipe::{Pipe, PipeOut, SpliceRead};
pub use read_on::{OnWriteError, ReadOn};
pub use seen::{Account, Call, Failure, Phase, RequestEnd, Seen, SharedSeen, errno_text};
pub use sensor::Sensor;
pub use slots::{ClientSlot, Slot, Slots};
pub use split::SplitWrites;
pub use stall::Stall;
pub use stop_order::StopOrder;
pub use tape::{Began, Moment, SysCall, Tape};
pub use wrapper::Wrapper;
