//! Packets for tests.

use std::time::Duration;

use etherparse::{PacketBuilder, TcpHeader};

use super::capture_file::CaptureFile;
use super::conversation::{Conversation, Kept};
use super::decode::decode;
use super::packet::Packet;

/// Ports of a server and of its client.
pub(super) const SERVER: u16 = 80;
pub(super) const CLIENT: u16 = 4000;

/// A segment between two ports of this machine, at a time in milliseconds, with flags as tcpdump shows them.
pub(super) fn segment(
    at: u64,
    [from, to]: [u16; 2],
    flags: &str,
    [seq, ack]: [u32; 2],
    payload: usize,
) -> Packet {
    let mut header = TcpHeader::new(from, to, seq, 512);
    header.fin = flags.contains('F');
    header.syn = flags.contains('S');
    header.rst = flags.contains('R');
    header.psh = flags.contains('P');
    header.ack = flags.contains('.');
    header.acknowledgment_number = ack;
    let mut bytes = Vec::new();
    let local = [127, 0, 0, 1];
    let builder = PacketBuilder::ipv4(local, local, 64).tcp_header(header);
    builder.write(&mut bytes, &vec![b'x'; payload]).unwrap();
    let at = Duration::from_millis(at);
    decode(&bytes, bytes.len() as u32, at, at).unwrap()
}

pub(super) fn to_server(at: u64, flags: &str, numbers: [u32; 2], payload: usize) -> Packet {
    segment(at, [CLIENT, SERVER], flags, numbers, payload)
}

pub(super) fn to_client(at: u64, flags: &str, numbers: [u32; 2], payload: usize) -> Packet {
    segment(at, [SERVER, CLIENT], flags, numbers, payload)
}

/// The same segment with other bytes in it.
pub(super) fn with_payload(packet: &Packet, text: &str) -> Packet {
    let headers = packet.bytes().len() - packet.payload().len();
    let bytes = [&packet.bytes()[..headers], text.as_bytes()].concat();
    decode(&bytes, bytes.len() as u32, packet.at, packet.at).unwrap()
}

/// The packets by connection.
pub(super) fn conversations(packets: Vec<Packet>) -> Vec<Conversation> {
    let file: CaptureFile = packets.into_iter().collect();
    file.conversations().collect()
}

/// A connection that the server reset, of three packets.
pub(crate) fn packets_of_a_reset() -> Conversation {
    let packets = vec![
        to_server(1, "[S]", [99, 0], 0),
        to_client(2, "[S.]", [499, 100], 0),
        to_client(3, "[R.]", [500, 100], 0),
    ];
    conversations(packets).remove(0)
}

/// A connection of which one packet with this text was captured.
pub(crate) fn packets_of_a_request(text: &str) -> Conversation {
    let packet = to_server(1, "[P.]", [100, 500], text.len());
    let mut kept = Kept::default();
    kept.push(with_payload(&packet, text));
    kept.conversation()
}

/// A connection with as many packets as are kept of one, each with as many bytes as are captured.
pub(crate) fn longest_conversation() -> Conversation {
    let mut kept = Kept::default();
    for at in 0..1000 {
        kept.push(to_server(at, "[P.]", [100, 500], 164 - 40));
    }
    kept.conversation()
}
