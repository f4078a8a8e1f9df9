//! Why a reset happened: what the kernel counts, what it says of each RST it sends, and what that means.
//!
//! [`Counters`] needs no privilege and tells how many, not which. [`Kernel`] needs root and a mounted tracefs:
//! it gives a [`ResetEvent`] for every RST that this machine sends, in all network namespaces, with the kernel's
//! own [`Reason`]. A [`Ledger`] tells the RST that decided a connection from its echoes, [`Cause`] puts the
//! reason into words, and [`Owners`] finds who listens on the port it came from. [`Packets`] needs `CAP_NET_RAW`: it
//! keeps the segments of each [`Conversation`], and its [`Ending`] tells what they prove of the first RST;
//! [`CapturedResets`] are told as they come.

mod boot;
mod counter_witness;
mod counters;
mod kernel;
mod level;
mod own_addresses;
mod owner;
mod packets;
mod pair;
mod process;
mod records;
mod unavailable;
mod verdict;
mod witness;

pub use counter_witness::{CounterWitness, Past, Window};
pub use counters::Counters;
pub use kernel::{
    BadLine, CloseEvent, Format, Judged, Kernel, KernelStory, KernelWitness, KillEvent, Killed,
    Ledger, Line, Place, Reason, ResetEvent, Scope, Stamp, State, Subject,
};
pub use level::Level;
pub use own_addresses::OwnAddresses;
pub use owner::{Owner, Owners};
#[cfg(test)]
pub(crate) use packets::packets_of_a_reset;
pub use packets::{
    BadCapture, CapturedReset, CapturedResets, Conversation, Ending, Flags, Lost, Packet, Packets,
    conversations, read_pcapng, write_pcapng,
};
pub use pair::Pair;
pub use process::Process;
pub use records::{
    BadFile, BadRecord, Event, Lane, NotOne, RECORD_VERSION, Record, Recorder, Role, What,
};
pub use rstlab_wire::monotonic_now;
pub use unavailable::Unavailable;
pub use verdict::{
    Cause, ClientSide, Counted, Evidence, KernelClose, KernelReset, KernelWord, Known, ServerSide,
    Side, Verdict,
};
pub use witness::{Account, KERNEL_SPEAKS, Watch, Witness};
