//! Finds out why a reset happened, from the evidence of sockets, counters, packets and kernel.
//!
//! [`Witness`] gathers the strongest evidence that works here; [`Verdict::of`] judges it, and [`ranking`] names every
//! [`Cause`] that it allows. [`Counters`] need no privilege and tell how many resets there were, not
//! which. [`KernelTrace`] needs root
//! and a mounted tracefs: it gives every RST that this machine sends, in all network namespaces, with the kernel's own
//! [`Reason`] and its [`Place`]. [`Packets`] needs `CAP_NET_RAW`: it keeps the segments of each [`Conversation`], whose
//! [`Ending`] tells what they prove of the first RST; [`CapturedResets`] hands on each RST as it is captured.
//! [`Owners`] finds who listens on the port that a RST came from.
//!
//! Inside, `kernel`, `packets`, `counters` and `verdict` import `evidence` and not each other; `records`, `recorder`,
//! `ended` and `witness` are above them.

mod boot;
mod container;
mod counters;
mod dispatch;
mod ended;
mod evidence;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod grouped;
mod kernel;
mod own_addresses;
mod owners;
mod packets;
mod process;
mod recorder;
mod records;
mod unavailable;
mod verdict;
mod witness;

pub use container::Container;
pub use counters::{CounterWitness, Past, Window, memory_pressures};
pub use dispatch::{Dispatch, Watch};
pub use ended::{
    AnswerKind, Connection, Ended, EndedQueue, Labels, Outcome, ProxyEnd, Summary, Taker, Takers,
    Teller, Total, Totals, UpstreamEnd, Wants, ended_queue,
};
pub use evidence::{
    ClientSide, Counted, Counters, Ending, Event, Evidence, KernelClose, KernelReset, KernelWord,
    Lane, Level, Pair, Place, Process, Reason, ServerSide, Side, State, What,
};
pub use grouped::grouped;
pub use kernel::{
    BadLine, CloseEvent, Format, KernelStory, KernelTrace, KernelWitness, ResetEvent, Scope, Stamp,
    Subject, TraceEvent, TracedClose, TracedReset,
};
pub use own_addresses::OwnAddresses;
pub use owners::{Owner, Owners};
pub use packets::{
    BadCapture, CaptureFile, CapturedReset, CapturedResets, Conversation, Flags, Lost, Packet,
    Packets, read_pcapng, write_pcapng,
};
pub use recorder::Recorder;
pub use records::{BadRecord, BadRecordFile, Keeping, NotOne, RECORD_VERSION, Record, Role};
pub use rstlab_wire::monotonic_now;
pub use unavailable::Unavailable;
pub use verdict::{Advised, Cause, Known, Ranked, Verdict, ranking};
pub use witness::{KERNEL_SPEAKS, Sources, Witness};
