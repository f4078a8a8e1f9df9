//! Keeps the packets of one connection, of a long one only the first and the last.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::packet::Packet;
use crate::evidence::Pair;

/// Most packets kept of a connection: its first and its last ones.
pub(super) const FIRST: usize = 32;
const LAST: usize = 224;

/// The packets of one connection, in order of time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversation {
    packets: Vec<Packet>,
    left_out: u64,
    /// Packets that tell of its end may be missing, because they were lost or left out.
    pub(super) lacks: bool,
}

impl Conversation {
    /// The packets that were kept: of a long connection the first 32 and the last 224.
    pub fn packets(&self) -> &[Packet] {
        &self.packets
    }

    pub(super) fn packets_mut(&mut self) -> &mut [Packet] {
        &mut self.packets
    }

    /// The memory that the packets take, in bytes.
    pub(crate) fn memory(&self) -> usize {
        let frames = self.packets.iter().map(|packet| packet.bytes().len());
        self.packets.capacity() * size_of::<Packet>() + frames.sum::<usize>()
    }

    /// How many packets, after the first 32, were captured and not kept.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }
}

pub(super) fn pair_of(packet: &Packet) -> Pair {
    Pair::new(packet.from, packet.to)
}

/// A conversation that goes on. However long it lasts, at most [`FIRST`] and [`LAST`] of its packets are kept.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Who opened the connection, and with which sequence number.
    opened: Option<(SocketAddr, u32)>,
    first: Vec<Packet>,
    last: VecDeque<Packet>,
    /// Memory of the packets' bytes.
    frame_bytes: usize,
    left_out: u64,
    /// A FIN is among the packets that were left out.
    fin_left_out: bool,
    /// A RST of the connection has been handed on.
    pub(super) reset_told: bool,
}

impl Kept {
    /// Whether `packet` opens another connection between the same addresses. The SYN that opened this one may come
    /// again.
    pub(super) fn is_over(&self, packet: &Packet) -> bool {
        opens(packet) && self.opened != Some((packet.from, packet.seq))
    }

    pub(super) fn push(&mut self, packet: Packet) {
        if opens(&packet) {
            self.opened = Some((packet.from, packet.seq));
        }
        self.frame_bytes += packet.bytes().len();
        if self.first.len() < FIRST {
            self.first.push(packet);
            return;
        }
        if self.last.len() == LAST
            && let Some(gone) = self.last.pop_front()
        {
            self.frame_bytes -= gone.bytes().len();
            self.fin_left_out |= gone.flags.fin();
            self.left_out += 1;
        }
        self.last.push_back(packet);
    }

    /// The memory that the conversation takes.
    pub(super) fn bytes(&self) -> usize {
        let packets = (self.first.capacity() + self.last.capacity()) * size_of::<Packet>();
        size_of::<Self>() + packets + self.frame_bytes
    }

    pub(super) fn last(&self) -> Option<&Packet> {
        self.last.back().or(self.first.last())
    }

    /// The packets in order of time: two processors that handle packets at the same time may have them captured in
    /// another order.
    pub(super) fn conversation(&self) -> Conversation {
        let mut packets: Vec<_> = self.first.iter().chain(&self.last).cloned().collect();
        packets.sort_by_key(|packet| packet.at);
        Conversation {
            packets,
            left_out: self.left_out,
            lacks: self.fin_left_out,
        }
    }
}

pub(super) fn opens(packet: &Packet) -> bool {
    packet.flags.syn() && !packet.flags.ack()
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{conversations, segment, to_client, to_server};
    use super::*;

    #[test]
    fn the_beginning_and_the_end_of_a_long_connection_are_kept() {
        let packets = (0..1000).map(|at| to_server(at, "[P.]", [at as u32, 1], 1));
        let found = conversations(packets.collect());
        let [conversation] = &found[..] else {
            panic!("{found:?}")
        };
        let kept: Vec<_> = conversation.packets().iter().map(|it| it.seq).collect();
        let expected: Vec<_> = (0..32).chain(1000 - 224..1000).collect();
        assert_eq!((kept, conversation.left_out()), (expected, 1000 - 256));
    }

    #[test]
    fn packets_are_sorted_by_connection_and_time() {
        let packets = vec![
            to_server(1, "[S]", [1, 0], 0),
            segment(2, [5000, 80], "[S]", [1, 0], 0),
            to_server(4, "[.]", [2, 8], 0),
            to_client(3, "[S.]", [7, 2], 0),
        ];
        let found = conversations(packets);
        let times = |it: &Conversation| it.packets().iter().map(|it| it.at.as_millis()).collect();
        let times: Vec<Vec<_>> = found.iter().map(times).collect();
        assert_eq!(times, [vec![1, 3, 4], vec![2]]);
    }

    #[test]
    fn a_repeated_syn_is_of_the_same_connection_and_a_new_syn_is_not() {
        let syn = |at, seq| to_server(at, "[S]", [seq, 0], 0);
        let packets = vec![
            syn(1, 5),
            syn(2, 5),
            to_client(3, "[R.]", [0, 6], 0),
            syn(4, 6),
            syn(5, 6),
        ];
        let found = conversations(packets);
        let lengths: Vec<_> = found.iter().map(|it| it.packets().len()).collect();
        assert_eq!(lengths, [3, 2]);
    }
}
