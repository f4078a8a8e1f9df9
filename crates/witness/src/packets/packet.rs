//! A captured TCP segment.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// Bytes that are kept of a payload that nobody asked to record.
const PAYLOAD_BYTES: usize = 64;

/// How much of a packet is captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Snap {
    /// The headers and the beginning of the payload.
    Beginning,
    /// All of a packet that fits on an Ethernet: its payload is asked for.
    Payload,
}

impl Snap {
    /// Most bytes that are captured, from the IP header on.
    pub(super) const fn bytes(self) -> usize {
        match self {
            // An IPv6 header, a TCP header with all its options, and the beginning of the payload.
            Snap::Beginning => 40 + 60 + PAYLOAD_BYTES,
            Snap::Payload => 1500,
        }
    }
}

/// A captured TCP segment. Segments are as the kernel handles them: on loopback, and on a card that cuts them itself,
/// larger than any packet on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// When it was captured, on `CLOCK_MONOTONIC`; if it was read from a file, which has no such clock, since 1970
    /// (UTC).
    pub at: Duration,
    /// Who sent it.
    pub from: SocketAddr,
    /// To whom.
    pub to: SocketAddr,
    /// The sequence number of its first byte.
    pub seq: u32,
    /// The acknowledgment number, if the flag ACK says that there is one.
    pub ack: Option<u32>,
    /// The flags.
    pub flags: Flags,
    /// The bytes of payload that it carried, however many of them were kept.
    pub payload_bytes: u32,
    /// The window, as it stands in the header: not scaled.
    pub window: u16,
    pub(super) frame: Frame,
}

impl Packet {
    /// When it was captured, by the wall clock: since 1970 (UTC).
    pub fn since_epoch(&self) -> Duration {
        self.frame.wall
    }

    /// The beginning of the packet, from its IP header on: at most 1,500 bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.frame.bytes
    }

    /// The headers and the first 64 bytes of payload, as far as they were kept.
    pub(super) fn beginning(&self) -> &[u8] {
        let end = self.header_bytes() + PAYLOAD_BYTES;
        &self.frame.bytes[..self.frame.bytes.len().min(end)]
    }

    /// Keeps no more than the [`beginning`](Self::beginning).
    pub(super) fn cut(&mut self) {
        self.frame.bytes = self.beginning().into();
    }

    /// The length that the packet had, from its IP header on.
    pub fn length(&self) -> u32 {
        self.frame.length
    }

    /// The beginning of its payload, as far as it was kept.
    pub(super) fn payload(&self) -> &[u8] {
        self.bytes().get(self.header_bytes()..).unwrap_or_default()
    }

    pub(super) fn payload_mut(&mut self) -> &mut [u8] {
        let headers = self.header_bytes();
        self.frame.bytes.get_mut(headers..).unwrap_or_default()
    }

    fn header_bytes(&self) -> usize {
        self.frame.length.saturating_sub(self.payload_bytes) as usize
    }

    /// The sequence number after its payload; a SYN takes one too.
    pub(super) fn payload_end(&self) -> u32 {
        let syn = u32::from(self.flags.syn());
        self.seq.wrapping_add(syn).wrapping_add(self.payload_bytes)
    }

    /// The sequence number after the segment; a FIN takes one too.
    pub(super) fn end(&self) -> u32 {
        self.payload_end().wrapping_add(self.flags.fin().into())
    }
}

/// The beginning of a packet, from its IP header on, as it was kept.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) wall: Duration,
    /// The length before the end was cut off.
    pub(super) length: u32,
    bytes: Box<[u8]>,
}

impl Frame {
    pub(super) fn new(bytes: &[u8], length: u32, wall: Duration) -> Self {
        let kept = bytes.len().min(Snap::Payload.bytes());
        Self {
            wall,
            length,
            bytes: bytes[..kept].into(),
        }
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} bytes at {:?}",
            self.bytes.len(),
            self.length,
            self.wall
        )
    }
}

/// The flags of a segment (RFC 9293 §3.1), shown as tcpdump does: `[P.]`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Flags(pub(super) u8);

impl Flags {
    /// The letters of tcpdump, from the lowest bit on: FIN, SYN, RST, PSH, ACK, URG, ECE, CWR.
    const LETTERS: [char; 8] = ['F', 'S', 'R', 'P', '.', 'U', 'E', 'W'];

    /// The sender sends no more.
    pub fn fin(self) -> bool {
        self.0 & 0x01 != 0
    }

    /// The connection begins.
    pub fn syn(self) -> bool {
        self.0 & 0x02 != 0
    }

    /// The connection is over, at once.
    pub fn rst(self) -> bool {
        self.0 & 0x04 != 0
    }

    /// There is an acknowledgment number.
    pub fn ack(self) -> bool {
        self.0 & 0x10 != 0
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = |bit: &usize| self.0 >> bit & 1 == 1;
        let letters: String = (0..8).filter(set).map(|bit| Self::LETTERS[bit]).collect();
        match letters.as_str() {
            "" => f.pad("[none]"),
            letters => f.pad(&format!("[{letters}]")),
        }
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_written_as_tcpdump_writes_them() {
        let shown =
            [0x02, 0x12, 0x10, 0x18, 0x19, 0x04, 0x14, 0xc2, 0].map(|bits| Flags(bits).to_string());
        assert_eq!(
            shown,
            [
                "[S]", "[S.]", "[.]", "[P.]", "[FP.]", "[R]", "[R.]", "[SEW]", "[none]"
            ]
        );
        assert_eq!(format!("{:<6}|", Flags(0x04)), "[R]   |");
    }
}
