//! The TCP segments of a capture file, sorted by connection, in little more memory than the file has bytes.

use std::collections::HashMap;
use std::time::Duration;

use super::conversation::{Conversation, Kept, opens, pair_of};
use super::decode::decode;
use super::packet::Packet;
use crate::evidence::Pair;

/// The TCP segments of a capture file, sorted by connection. A pair of addresses that was used again has several
/// connections.
///
/// A packet is kept as its beginning: a decoded [`Packet`] would take four times the memory, and a [`Conversation`]
/// of two packets ten times.
#[derive(Debug, Default)]
pub struct CaptureFile {
    packets: Vec<CompactPacket>,
    /// The beginnings of all packets, one behind the other.
    bytes: Vec<u8>,
    /// In the order of their first packets.
    connections: Vec<PacketChain>,
}

/// A packet in the order of the file.
#[derive(Debug)]
struct CompactPacket {
    wall: Duration,
    length: u32,
    /// Where its bytes begin; they end where those of the next packet begin.
    begin: u32,
    /// The next packet of its connection; its own number if there is none.
    next: u32,
}

/// The packets of a connection, by their numbers.
#[derive(Debug, Clone, Copy)]
struct PacketChain {
    first: u32,
    last: u32,
    /// The SYN without ACK that came last.
    opened: Option<u32>,
}

/// Packets of a file that is being read.
#[derive(Debug, Default)]
pub(super) struct CaptureSorter {
    file: CaptureFile,
    /// The newest connection of each pair of addresses.
    newest: HashMap<Pair, u32>,
}

impl CaptureFile {
    /// The packets in the order of the file.
    pub fn packets(&self) -> impl Iterator<Item = Packet> {
        (0..self.packets.len() as u32).filter_map(|number| self.packet(number))
    }

    /// The connections in the order of their first packets.
    pub fn conversations(&self) -> impl ExactSizeIterator<Item = Conversation> {
        let all = 0..self.connections.len();
        all.map(|number| self.conversation(number))
    }

    /// The connection with this number, counted from 0 in the order of [`conversations`](Self::conversations).
    ///
    /// # Panics
    /// There are fewer connections.
    pub fn conversation(&self, number: usize) -> Conversation {
        let PacketChain { first, last, .. } = self.connections[number];
        let mut kept = Kept::default();
        let mut at = first;
        loop {
            self.packet(at).into_iter().for_each(|it| kept.push(it));
            if at == last {
                return kept.conversation();
            }
            at = self.packets[at as usize].next;
        }
    }

    /// The packet with this number: it was decoded before it was kept, so it is there.
    fn packet(&self, number: u32) -> Option<Packet> {
        let number = number as usize;
        let packet = &self.packets[number];
        let end = self.packets.get(number + 1).map(|it| it.begin as usize);
        let bytes = &self.bytes[packet.begin as usize..end.unwrap_or(self.bytes.len())];
        decode(bytes, packet.length, packet.wall, packet.wall)
    }
}

impl CaptureSorter {
    /// Adds the next packet of the file. The limits of a file's size keep all numbers below `u32::MAX`.
    pub(super) fn push(&mut self, packet: &Packet) {
        let Self { file, newest } = self;
        let number = file.packets.len() as u32;
        file.packets.push(CompactPacket {
            wall: packet.since_epoch(),
            length: packet.length(),
            begin: file.bytes.len() as u32,
            next: number,
        });
        file.bytes.extend(packet.beginning());
        let opened = opens(packet).then_some(number);
        let new = file.connections.len() as u32;
        let at = newest.entry(pair_of(packet)).or_insert(new);
        let is_over = |chain: &PacketChain| {
            let syn = chain.opened.and_then(|number| file.packet(number));
            opens(packet) && syn.is_none_or(|syn| (syn.from, syn.seq) != (packet.from, packet.seq))
        };
        match file.connections.get(*at as usize).copied() {
            Some(chain) if !is_over(&chain) => {
                file.packets[chain.last as usize].next = number;
                file.connections[*at as usize] = PacketChain {
                    last: number,
                    opened: opened.or(chain.opened),
                    ..chain
                };
            }
            _ => {
                *at = new;
                file.connections.push(PacketChain {
                    first: number,
                    last: number,
                    opened,
                });
            }
        }
    }

    /// The whole file.
    pub(super) fn finish(self) -> CaptureFile {
        self.file
    }
}

/// Packets of which only the wall clock's time counts, as in a file.
impl FromIterator<Packet> for CaptureFile {
    fn from_iter<T: IntoIterator<Item = Packet>>(packets: T) -> Self {
        let mut sorter = CaptureSorter::default();
        packets.into_iter().for_each(|packet| sorter.push(&packet));
        sorter.finish()
    }
}
