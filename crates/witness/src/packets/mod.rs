//! The packets of the watched ports: captured, kept within bounds, read as the story of a connection, and put into
//! files that Wireshark opens.

mod bad_capture;
mod capture;
mod conversation;
mod decode;
mod filter;
#[cfg(test)]
mod fixture;
mod packet;
mod read;
mod resets;
mod ring;
mod socket;
mod store;
mod story;
mod write;

pub use bad_capture::BadCapture;
pub use capture::Packets;
pub use conversation::{Conversation, conversations};
#[cfg(test)]
pub(crate) use fixture::packets_of_a_reset;
pub use packet::{Flags, Packet};
pub use read::read_pcapng;
pub use resets::{CapturedReset, CapturedResets, Lost};
pub use story::Ending;
pub use write::write_pcapng;
