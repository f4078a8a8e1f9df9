//! The packets of the watched ports: captured, kept in bounded memory, and read and written as files of Wireshark.

mod bad_capture;
mod capture;
mod capture_file;
mod captured_resets;
mod conversation;
mod credentials;
mod decode;
mod ending;
mod filter;
#[cfg(test)]
mod fixture;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod packet;
mod read;
mod request;
mod reset_sender;
mod ring;
mod socket;
mod store;
mod write;

pub use bad_capture::BadCapture;
pub use capture::Packets;
pub use capture_file::CaptureFile;
pub use captured_resets::{CapturedResets, Lost};
pub use conversation::Conversation;
#[cfg(test)]
pub(crate) use fixture::{longest_conversation, packets_of_a_request, packets_of_a_reset};
pub use packet::{Flags, Packet};
pub use read::read_pcapng;
pub use reset_sender::CapturedReset;
pub use write::write_pcapng;
