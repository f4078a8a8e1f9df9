//! Why a capture file cannot be read.

use std::error::Error;
use std::io;
use std::path::PathBuf;

/// Why a capture file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BadCapture {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The file is of the older format.
    #[error("{} is a pcap file, not pcapng; this makes it one: editcap -F pcapng OLD NEW", path.display())]
    Pcap {
        /// Which file.
        path: PathBuf,
    },
    /// The file is no capture.
    #[error("{} is no pcapng file", path.display())]
    NotPcapng {
        /// Which file.
        path: PathBuf,
    },
    /// The file is larger than what is read.
    #[error(
        "{} is too large, at block {block}: 64 MiB, 1,000,000 blocks and 1,000 interfaces are read at most; \
         `tshark -r OLD -Y tcp.port==N -w NEW` makes it smaller",
        path.display()
    )]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// Where the limit is, counted from 1.
        block: u64,
    },
    /// The file ends too early.
    #[error("{} ends in the middle of block {block}, or that is larger than 1 MiB", path.display())]
    CutOff {
        /// Which file.
        path: PathBuf,
        /// Which block, counted from 1.
        block: u64,
    },
    /// A block is damaged.
    #[error("{} is no sound pcapng file, at block {block}", path.display())]
    Garbage {
        /// Which file.
        path: PathBuf,
        /// Which block, counted from 1.
        block: u64,
        /// What is wrong with it.
        source: Box<dyn Error + Send + Sync>,
    },
}
