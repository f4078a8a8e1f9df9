//! Records of the connections in a capture file, with packets as their only evidence.

use std::fs::File;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::Path;

use rstlab_witness::{Conversation, Ending, Evidence, RECORD_VERSION, Record, Verdict};

/// How a pcapng file begins.
const MAGIC: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

/// Whether a file is a capture, by its name or its first bytes.
pub(crate) fn is_capture(path: &Path) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str());
    let mut magic = [0; 4];
    let mut begins = || File::open(path)?.read_exact(&mut magic);
    matches!(ending, Some("pcapng" | "pcap" | "cap")) || (begins().is_ok() && magic == MAGIC)
}

/// Whether a RST ended a connection.
pub(crate) fn is_reset(conversation: &Conversation) -> bool {
    matches!(conversation.ending(), Ending::Reset { .. })
}

/// The record of a connection; `None` if it has no packets.
pub(crate) fn record(conversation: Conversation) -> Option<Record> {
    let (server, client) = ends(&conversation)?;
    let evidence = Evidence {
        packets: Some(conversation.ending()),
        ..Evidence::default()
    };
    let first = conversation.packets().first()?;
    Some(Record {
        version: RECORD_VERSION,
        // A capture file does not say on which machine it was made.
        boot_id: String::new(),
        unix_time: first.since_epoch().as_secs(),
        server,
        client,
        request: None,
        outcome: None,
        verdict: Verdict::of(&evidence, server),
        evidence,
        events: conversation.events(server),
        left_out: conversation.left_out(),
        packets: Some(conversation),
    })
}

/// The side that accepted the connection, and the side that connected, as a SYN shows. Without a SYN the lower port is
/// taken for the server's.
fn ends(conversation: &Conversation) -> Option<(SocketAddr, SocketAddr)> {
    let packets = conversation.packets();
    let first = packets.first()?;
    Some(match packets.iter().find(|packet| packet.flags.syn()) {
        Some(syn) if syn.flags.ack() => (syn.from, syn.to),
        Some(syn) => (syn.to, syn.from),
        None if first.from.port() < first.to.port() => (first.from, first.to),
        None => (first.to, first.from),
    })
}
