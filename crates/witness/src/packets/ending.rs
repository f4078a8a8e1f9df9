//! Reads from the packets of a connection how it ended.

use std::net::SocketAddr;

use rstlab_wire::nanos;

use super::conversation::Conversation;
use super::packet::Packet;
use crate::evidence::{Ending, Event, Lane, Side, What};

impl Conversation {
    /// How the connection ended.
    pub fn ending(&self) -> Ending {
        let packets = self.packets();
        if let Some(place) = self.deciding_reset() {
            return self.reset(place);
        }
        match packets.iter().find(|packet| packet.flags.fin()) {
            Some(&Packet { at, from, .. }) => Ending::Closed {
                at_ns: nanos(at),
                from,
                whole: !self.lacks && self.has_all_that_was_acknowledged(packets),
            },
            None => Ending::Open,
        }
    }

    /// The packets as events; sequence numbers are counted from each side's first.
    pub fn events(&self, server: SocketAddr) -> Vec<Event> {
        let mut first_of = [None; 2];
        let events = self.packets().iter().map(|packet| {
            let from = Side::of(packet.from, server);
            let first = first_of[usize::from(from == Side::Server)].get_or_insert(packet.seq);
            Event {
                at_ns: nanos(packet.at),
                lane: Lane::Wire,
                what: What::Packet {
                    from,
                    flags: packet.flags.to_string(),
                    payload_bytes: packet.payload_bytes,
                    seq: packet.seq.wrapping_sub(*first),
                },
            }
        });
        events.collect()
    }

    /// How `rst` ended the connection; `None` if `rst` is not among the packets that were kept.
    pub(super) fn ended_by(&self, rst: &Packet) -> Option<Ending> {
        let place = self.packets().iter().position(|packet| packet == rst)?;
        Some(self.reset(place))
    }

    /// The place of the RST that decided: the first one, or one with ACK of the same sender. A close makes the socket
    /// invisible and then sends its RST (`tcp_send_active_reset`); a segment that arrives in between, on another
    /// processor, is answered first.
    pub(super) fn deciding_reset(&self) -> Option<usize> {
        let packets = self.packets().iter().enumerate();
        let mut resets = packets.filter(|(_, packet)| packet.flags.rst());
        let (first, rst) = resets.next()?;
        if rst.flags.ack() {
            return Some(first);
        }
        let own = resets.find(|(_, packet)| packet.flags.ack() && packet.from == rst.from);
        Some(own.map_or(first, |(place, _)| place))
    }

    /// How the RST at this place ended the connection.
    fn reset(&self, place: usize) -> Ending {
        let (before, rst) = (&self.packets()[..place], &self.packets()[place]);
        let of_peer = || before.iter().filter(|packet| packet.from == rst.to);
        let refuses = of_peer()
            .any(|packet| packet.ack.is_none() && rst.seq == 0 && rst.ack == Some(packet.end()));
        let fin = before
            .iter()
            .find(|packet| packet.from == rst.from && packet.flags.fin());
        let fin_acked_before = fin.is_some_and(|fin| {
            let in_time = &before[..refused(before, rst).unwrap_or(before.len())];
            let mut acks = in_time.iter().filter(|packet| packet.from == rst.to);
            acks.any(|packet| packet.ack.is_some_and(|ack| distance(fin.end(), ack) >= 0))
        });
        let until = if refuses {
            before
        } else {
            &self.packets()[..=place]
        };
        Ending::Reset {
            at_ns: nanos(rst.at),
            from: rst.from,
            seq: rst.seq,
            answers: rst.ack.is_none() || refuses,
            refuses,
            fin_before: fin.is_some(),
            fin_acked_before,
            received_bytes: payload(of_peer()),
            request_unanswered: request_unanswered(before, rst),
            whole: !self.lacks && self.has_all_that_was_acknowledged(until),
        }
    }

    /// Whether the segments of each side were captured from its SYN on, up to what the other side acknowledged. A
    /// capture that lost packets, or whose filter asked for some flags only, has holes.
    ///
    /// The number of a RST counts as acknowledged, because it is the next number of the RST's sender, or one that the
    /// peer acknowledged.
    fn has_all_that_was_acknowledged(&self, packets: &[Packet]) -> bool {
        let ends = packets.first().map(|packet| [packet.from, packet.to]);
        ends.into_iter().flatten().all(|end| {
            let acknowledged = packets
                .iter()
                .filter_map(|packet| match packet.from == end {
                    true => packet.flags.rst().then_some(packet.seq),
                    false => packet.ack,
                });
            let (own, mut acknowledged) =
                (packets.iter().filter(|it| it.from == end), acknowledged);
            let Some(syn) = own.clone().find(|packet| packet.flags.syn()) else {
                return acknowledged.next().is_none();
            };
            let from_syn = |number: u32| number.wrapping_sub(syn.seq);
            let mut spans: Vec<_> = own
                .filter(|packet| !packet.flags.rst())
                .map(|packet| [packet.seq, packet.end()].map(from_syn))
                .collect();
            spans.sort_unstable();
            let left_out = self.left_out() > 0;
            let reached = spans.into_iter().fold(0, |reached, [begin, end]| {
                if begin <= reached || left_out {
                    end.max(reached)
                } else {
                    reached
                }
            });
            acknowledged.all(|number| from_syn(number) <= reached)
        })
    }
}

/// The place of the first segment with data that the sender of the RST never acknowledged. The RST itself does not name
/// the segment that it answers: of several RSTs that answer several segments, any may come first.
fn refused(before: &[Packet], rst: &Packet) -> Option<usize> {
    let own = before.iter().filter(|packet| packet.from == rst.from);
    let taken = own.chain([rst]).filter_map(|packet| packet.ack);
    let taken = taken.reduce(|taken, ack| if distance(taken, ack) > 0 { ack } else { taken });
    before.iter().position(|packet| {
        let beyond = |taken| distance(taken, packet.payload_end()) > 0;
        packet.from == rst.to && packet.payload_bytes > 0 && taken.is_none_or(beyond)
    })
}

/// Whether the receiver of the RST had begun a new HTTP request after the last data of the RST's sender. A body that
/// comes after an early answer begins no request.
fn request_unanswered(before: &[Packet], rst: &Packet) -> bool {
    let has_data = |packet: &&Packet| packet.payload_bytes > 0;
    let answer = before
        .iter()
        .rposition(|it| it.from == rst.from && has_data(&it));
    answer.is_some_and(|answer| {
        let taken = before[answer].ack;
        // A retransmission has no new data.
        let is_new = |it: &&Packet| taken.is_none_or(|taken| distance(taken, it.seq) >= 0);
        let mut data = before[answer..]
            .iter()
            .filter(|it| it.from == rst.to)
            .filter(has_data);
        data.find(is_new)
            .is_some_and(|it| begins_request(it.payload()))
    })
}

/// A method and a target (RFC 9112 §3): `POST /`, `OPTIONS *`, `GET http://…`, `CONNECT …`.
pub(super) fn begins_request(payload: &[u8]) -> bool {
    let method = payload
        .iter()
        .take_while(|byte| byte.is_ascii_uppercase())
        .count();
    (3..=16).contains(&method) && payload.get(method) == Some(&b' ') && payload.len() > method + 1
}

/// The bytes that the segments of one side cover. A FIN takes a number, and is not a byte.
fn payload<'a>(segments: impl Iterator<Item = &'a Packet> + Clone) -> u64 {
    let fin = segments.clone().any(|segment| segment.flags.fin());
    let mut reached = None;
    let mut bytes = 0_u64;
    for segment in segments {
        let begin = segment.seq.wrapping_add(segment.flags.syn().into());
        let end = reached.get_or_insert(begin);
        let more = distance(*end, segment.end());
        if more > 0 {
            *end = segment.end();
            bytes += u64::from(more.unsigned_abs());
        }
    }
    bytes.saturating_sub(fin.into())
}

/// From one sequence number to another (RFC 9293 §3.4); the numbers begin anew after 4 GiB.
fn distance(from: u32, to: u32) -> i32 {
    to.wrapping_sub(from).cast_signed()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::fixture::{
        CLIENT, SERVER, conversations, segment, to_client, to_server, with_payload,
    };
    use super::*;

    /// The rest of a connection whose SYNs have the numbers 99 (client) and 499 (server), up to a RST of the server.
    fn ending(rest: Vec<Packet>) -> Ending {
        let opened = [
            to_server(0, "[S]", [99, 0], 0),
            to_client(1, "[S.]", [499, 100], 0),
            to_server(2, "[.]", [100, 500], 0),
        ];
        conversations(opened.into_iter().chain(rest).collect())[0].ending()
    }

    /// The facts about the RST: answers, refuses, FIN before, FIN acknowledged before, bytes received.
    fn told(ending: Ending) -> (bool, bool, bool, bool, u64) {
        match ending {
            Ending::Reset {
                answers,
                refuses,
                fin_before,
                fin_acked_before,
                received_bytes,
                ..
            } => (
                answers,
                refuses,
                fin_before,
                fin_acked_before,
                received_bytes,
            ),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_first_rst_decides_and_not_its_echoes() {
        let ending = ending(vec![
            to_server(3, "[P.]", [100, 500], 10),
            to_client(4, "[R.]", [500, 110], 0),
            to_server(5, "[P.]", [110, 500], 10),
            to_client(6, "[R]", [500, 0], 0),
        ]);
        assert_eq!(told(ending), (false, false, false, false, 10));
        let Ending::Reset {
            at_ns, from, seq, ..
        } = ending
        else {
            panic!("{ending:?}")
        };
        assert_eq!((at_ns, from.port(), seq), (4_000_000, SERVER, 500));
    }

    #[test]
    fn an_echo_that_overtook_the_rst_of_the_close_does_not_decide() {
        let begun = [
            to_server(3, "[P.]", [100, 500], 10),
            to_server(4, "[P.]", [110, 500], 10),
            to_client(5, "[R]", [500, 0], 0),
        ];
        assert_eq!(
            told(ending(begun.to_vec())),
            (true, false, false, false, 20)
        );
        let close = to_client(6, "[R.]", [500, 110], 0);
        let of_the_peer = to_server(6, "[R.]", [120, 500], 0);
        let closed = [&begun[..], &[of_the_peer.clone(), close]].concat();
        assert_eq!(told(ending(closed)), (false, false, false, false, 20));
        let crossed = [&begun[..], &[of_the_peer]].concat();
        assert_eq!(told(ending(crossed)), (true, false, false, false, 20));
    }

    #[test]
    fn data_that_acknowledges_the_fin_itself_is_not_late() {
        let close = to_client(3, "[F.]", [500, 100], 0);
        let acknowledged = to_server(4, "[.]", [100, 501], 0);
        let data = to_server(5, "[P.]", [100, 501], 10);
        let answer = to_client(6, "[R]", [501, 0], 0);
        let late = ending(vec![
            close.clone(),
            acknowledged,
            data.clone(),
            answer.clone(),
        ]);
        assert_eq!(told(late), (true, false, true, true, 10));
        let in_time = ending(vec![close, data, answer]);
        assert_eq!(told(in_time), (true, false, true, false, 10));
    }

    /// The data crosses the FIN; the answer to the acknowledgment overtakes the answer to the data.
    #[test]
    fn data_that_crossed_the_fin_is_not_late_though_the_fin_was_acknowledged_since() {
        let ending = ending(vec![
            to_server(3, "[P.]", [100, 500], 4),
            to_client(4, "[F.]", [500, 100], 0),
            to_server(5, "[.]", [104, 501], 0),
            to_client(6, "[R]", [501, 0], 0),
            to_client(7, "[R]", [500, 0], 0),
        ]);
        assert_eq!(told(ending), (true, false, true, false, 4));
    }

    #[test]
    fn a_fin_with_data_is_acknowledged_after_its_data() {
        let close = to_client(3, "[FP.]", [500, 100], 20);
        let data = to_server(5, "[P.]", [100, 520], 1);
        let answer = to_client(6, "[R]", [520, 0], 0);
        for (ack, acked) in [(500, false), (520, false), (521, true)] {
            let ack = to_server(4, "[.]", [100, ack], 0);
            let ending = ending(vec![close.clone(), ack, data.clone(), answer.clone()]);
            assert_eq!(told(ending), (true, false, true, acked, 1));
        }
    }

    /// The peer's FIN has a number of its own, which its next segments count; it is no data.
    #[test]
    fn a_half_close_brings_no_data() {
        let half_closed = |sent: usize, rst| {
            let next = 100 + sent as u32;
            let fin = to_server(3, "[F.]", [100, 500], sent);
            ending(vec![
                fin.clone(),
                to_client(4, "[P.]", [500, next + 1], 5),
                to_server(5, "[.]", [next + 1, 505], 0),
                fin,
                rst,
            ])
        };
        let abort = |next| to_client(6, "[R.]", [505, next], 0);
        assert_eq!(told(half_closed(0, abort(101))).4, 0);
        assert_eq!(told(half_closed(7, abort(108))).4, 7);
        let answer = to_client(6, "[R]", [505, 0], 0);
        let answered = told(half_closed(0, answer));
        assert_eq!(answered, (true, false, false, false, 0));
    }

    #[test]
    fn a_refusal_is_told_from_the_rst_of_a_close() {
        let syn = to_server(0, "[S]", [u32::MAX, 0], 0);
        let refusal = to_client(1, "[R.]", [0, 0], 0);
        assert_eq!(
            told(conversations(vec![syn, refusal])[0].ending()),
            (true, true, false, false, 0)
        );
        // The RST of a close may have sequence numbers that look like those of a refusal.
        let ending = ending(vec![to_client(3, "[R.]", [500, 100], 0)]);
        assert_eq!(told(ending), (false, false, false, false, 0));
    }

    fn is_whole(ending: Ending) -> bool {
        !ending.is_of_a_part()
    }

    /// A connection that both sides used, closed with unread bytes.
    fn used() -> [Packet; 7] {
        [
            to_server(0, "[S]", [u32::MAX, 0], 0),
            to_client(1, "[S.]", [499, 0], 0),
            to_server(2, "[.]", [0, 500], 0),
            to_server(3, "[P.]", [0, 500], 10),
            to_client(4, "[P.]", [500, 10], 20),
            to_server(5, "[P.]", [10, 520], 10),
            to_client(6, "[R.]", [520, 20], 0),
        ]
    }

    #[test]
    fn a_capture_without_acknowledged_bytes_is_a_part() {
        let without = |gone: &[usize]| {
            let packets = used().into_iter().enumerate();
            let rest = packets.filter(|(place, _)| !gone.contains(place));
            conversations(rest.map(|(_, packet)| packet).collect())[0].ending()
        };
        for nothing in [&[][..], &[2]] {
            assert!(is_whole(without(nothing)), "{nothing:?}");
        }
        for something in [
            &[0][..],
            &[1],
            &[3],
            &[4],
            &[5],
            // Filters that people use: only RSTs, and those with SYNs; the answers of one side only.
            &[0, 1, 2, 3, 4, 5],
            &[2, 3, 4, 5],
            &[0, 2, 3, 5],
        ] {
            assert!(!is_whole(without(something)), "{something:?}");
        }
    }

    #[test]
    fn packets_that_come_twice_late_or_after_the_rst_leave_no_gap() {
        let mut packets = used().to_vec();
        packets.swap(3, 5);
        packets.insert(5, packets[5].clone());
        // A keepalive probe.
        packets.insert(6, to_server(5, "[.]", [19, 520], 0));
        packets.push(to_server(7, "[P.]", [70_000, 9999], 1));
        packets.push(to_client(8, "[R]", [9999, 0], 0));
        assert!(is_whole(conversations(packets)[0].ending()));
    }

    #[test]
    fn a_connection_without_a_rst_may_lack_packets_too() {
        let fin = to_client(6, "[F.]", [520, 20], 0);
        let packets = [&used()[..6], &[fin]].concat();
        let Ending::Closed { whole: true, .. } = conversations(packets.clone())[0].ending() else {
            panic!("a FIN")
        };
        assert!(!is_whole(conversations(packets[4..].to_vec())[0].ending()));
    }

    /// The middle of a long connection is left out; a FIN in it would tell late data from data after the close.
    #[test]
    fn a_long_connection_is_whole_but_for_a_fin_that_was_left_out() {
        let data = |from: u32, to| (from..to).map(|at| to_server(4, "[P.]", [at * 10, 500], 10));
        let mut packets = used()[..3].to_vec();
        packets.extend(data(0, 500));
        packets.push(to_client(6, "[R.]", [500, 5000], 0));
        let unread = conversations(packets)[0].ending();
        assert!(is_whole(unread) && told(unread).4 == 5000);
        let mut packets = used()[..3].to_vec();
        packets.extend(data(0, 100));
        packets.push(to_client(4, "[F.]", [500, 1000], 0));
        packets.extend(data(100, 500));
        packets.push(to_client(6, "[R]", [501, 0], 0));
        assert!(!is_whole(conversations(packets)[0].ending()));
    }

    #[test]
    fn a_new_request_after_an_answer_is_unanswered_and_a_late_body_is_no_request() {
        let met = |payloads: &[(&str, bool)]| {
            let (mut client, mut server) = (100, 500);
            let mut packets = Vec::new();
            for (at, &(text, up)) in (3..).zip(payloads) {
                let bytes = text.len() as u32;
                packets.push(if up {
                    with_payload(&to_server(at, "[P.]", [client, server], text.len()), text)
                } else {
                    with_payload(&to_client(at, "[P.]", [server, client], text.len()), text)
                });
                *(if up { &mut client } else { &mut server }) += bytes;
            }
            packets.push(to_client(20, "[R.]", [server, client], 0));
            match ending(packets) {
                Ending::Reset {
                    request_unanswered, ..
                } => request_unanswered,
                other => panic!("{other:?}"),
            }
        };
        let (request, answer) = (("GET / HTTP/1.1\r\n", true), ("HTTP/1.1 200 OK\r\n", false));
        assert!(met(&[request, answer, request]));
        assert!(met(&[
            request,
            answer,
            ("POST /a HTTP/1.1\r\n", true),
            ("body", true)
        ]));
        assert!(!met(&[request]), "the first request of its connection");
        assert!(!met(&[request, answer, ("name=value", true)]), "its body");
        assert!(!met(&[request, answer, request, answer]), "it was answered");
        assert!(!met(&[request, request, answer]), "they were pipelined");
    }

    #[test]
    fn without_a_rst_the_first_fin_is_the_end() {
        assert_eq!(ending(vec![]), Ending::Open);
        let fins = vec![
            to_server(3, "[F.]", [100, 500], 0),
            to_client(4, "[F.]", [500, 101], 0),
        ];
        let Ending::Closed { at_ns, from, .. } = ending(fins) else {
            panic!("a FIN")
        };
        assert_eq!((at_ns, from.port()), (3_000_000, CLIENT));
    }

    proptest! {
        #[test]
        fn received_bytes_count_once_whatever_their_order_and_numbers(
            isn: u32,
            lengths in prop::collection::vec(1_usize..3000, 1..20),
            again in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
        ) {
            let mut packets = vec![to_server(0, "[S]", [isn, 0], 0)];
            let mut seq = isn.wrapping_add(1);
            for &length in &lengths {
                packets.push(to_server(1, "[P.]", [seq, 1], length));
                seq = seq.wrapping_add(length as u32);
            }
            for index in again {
                packets.push(index.get(&packets).clone());
            }
            packets.push(to_client(2, "[R.]", [1, seq], 0));
            let received = lengths.iter().sum::<usize>() as u64;
            prop_assert_eq!(told(conversations(packets)[0].ending()).4, received);
        }

        #[test]
        fn no_packets_make_the_reader_of_endings_panic(
            packets in prop::collection::vec((any::<bool>(), "[SFRP.]{0,3}", any::<[u32; 2]>(), 0_usize..100), 0..20),
        ) {
            let packets = packets.into_iter().enumerate().map(|(at, (up, flags, numbers, payload))| {
                let ports = if up { [CLIENT, SERVER] } else { [SERVER, CLIENT] };
                segment(at as u64, ports, &flags, numbers, payload)
            });
            for conversation in conversations(packets.collect()) {
                conversation.ending();
            }
        }
    }
}
