//! Hands on each captured RST, once the packets that explain it have been captured too.

use std::mem;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::conversation::{opens, pair_of};
use super::packet::Packet;
use super::store::Store;
use crate::evidence::{Ending, Evidence, Pair, Place};

/// How long a RST that answers a segment waits for the RST of a close, and how many wait at most: the limits
/// of the kernel's trace, in which such a RST may be early, too.
const HOLD: Duration = Duration::from_millis(50);
const MAX_HELD: usize = 4096;

/// A RST that was captured: one that this machine sent, received or passed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CapturedReset {
    /// The RST segment.
    pub packet: Packet,
    /// Whether the RST decided its connection.
    pub place: Place,
    /// How the RST ended the connection, if it decided; `None` also if too little of the connection is kept.
    pub ending: Option<Ending>,
    /// If the RST decided: method and path of the HTTP request before it, as [`request_until`](super::Conversation::request_until) names it.
    pub request: Option<String>,
}

impl CapturedReset {
    /// The RST as evidence, for a judgement in which the sender of the RST is the server.
    pub fn evidence(&self) -> Evidence {
        Evidence {
            packets: self.ending,
            ..Evidence::default()
        }
    }
}

/// Hands on each RST through a channel.
///
/// A RST waits for the packets that are taken next, because a segment that explains the RST may be captured after it,
/// on another processor. A RST that answers a segment waits longer if its connection has had no RST yet, because it may
/// have overtaken the RST of a close (`Conversation::deciding_reset`).
#[derive(Debug)]
pub(super) struct ResetSender {
    out: mpsc::Sender<CapturedReset>,
    /// RSTs that wait, of earlier looks at the capture and of this one.
    held: Vec<Packet>,
    latest: Vec<Packet>,
    dropped: u64,
}

impl ResetSender {
    pub(super) fn new(out: mpsc::Sender<CapturedReset>) -> Self {
        Self {
            out,
            held: Vec::new(),
            latest: Vec::new(),
            dropped: 0,
        }
    }

    /// How many RSTs found no room in the channel.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Whether RSTs wait to be handed on.
    pub(super) fn waits(&self) -> bool {
        !self.held.is_empty() || !self.latest.is_empty()
    }

    /// Takes a packet, before it goes into the store.
    pub(super) fn see(&mut self, packet: &Packet, store: &mut Store) {
        if self.waits() && opens(packet) && store.is_over(packet) {
            self.finish_one(&pair_of(packet), store);
        }
        if packet.flags.rst() {
            self.latest.push(packet.clone());
        }
    }

    /// Hands on the RSTs that have waited for long enough. A look at the capture has ended, at `now`.
    pub(super) fn tell(&mut self, now: Duration, store: &mut Store) {
        let held = mem::take(&mut self.held);
        let hold = if held.len() > MAX_HELD {
            Duration::ZERO
        } else {
            HOLD
        };
        let (own, answers): (Vec<_>, Vec<_>) = held.into_iter().partition(|it| it.flags.ack());
        for packet in own {
            self.hand_on(packet, store);
        }
        for packet in answers {
            if store.is_reset_told(&pair_of(&packet)) || packet.at + hold <= now {
                self.hand_on(packet, store);
            } else {
                self.held.push(packet);
            }
        }
        self.latest.sort_by_key(|packet| packet.at);
        self.held.append(&mut self.latest);
    }

    /// Hands on all RSTs, because no more packets will come that explain them.
    pub(super) fn finish(&mut self, store: &mut Store) {
        self.tell(Duration::MAX, store);
        self.tell(Duration::MAX, store);
    }

    /// Hands on the RSTs of a connection whose addresses are being used again. RSTs of other connections go on waiting,
    /// because packets that explain them may be yet to come.
    fn finish_one(&mut self, pair: &Pair, store: &mut Store) {
        let is_its = |packet: &mut Packet| pair_of(packet) == *pair;
        let mut its: Vec<_> = self.held.extract_if(.., is_its).collect();
        its.extend(self.latest.extract_if(.., is_its));
        its.sort_by_key(|packet| (!packet.flags.ack(), packet.at));
        for packet in its {
            self.hand_on(packet, store);
        }
    }

    fn hand_on(&mut self, packet: Packet, store: &mut Store) {
        let pair = pair_of(&packet);
        let is_first = !store.is_reset_told(&pair);
        store.set_reset_told(&pair);
        let conversation = is_first.then(|| store.conversation(&pair)).flatten();
        let reset = CapturedReset {
            place: if is_first { Place::First } else { Place::Echo },
            request: conversation
                .as_ref()
                .and_then(|it| it.request_until(packet.at)),
            ending: conversation.and_then(|it| it.ended_by(&packet)),
            packet,
        };
        match self.out.try_send(reset) {
            Ok(()) | Err(TrySendError::Closed(_)) => {}
            Err(TrySendError::Full(_)) => self.dropped += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::super::fixture::{to_client, to_server};
    use super::*;
    use crate::verdict::{Cause, Known, Verdict};

    /// The resets that are handed on if these packets come in these looks at the capture.
    fn told(looks: &[&[Packet]]) -> Vec<CapturedReset> {
        let (out, mut resets) = mpsc::channel(64);
        let (mut sender, mut store) = (ResetSender::new(out), Store::new(100_000));
        for look in looks {
            let mut now = Duration::ZERO;
            for packet in *look {
                sender.see(packet, &mut store);
                store.push(packet.clone());
                now = packet.at;
            }
            sender.tell(now, &mut store);
        }
        sender.finish(&mut store);
        let mut told = Vec::new();
        while let Ok(reset) = resets.try_recv() {
            told.push(reset);
        }
        told
    }

    fn cause(reset: &CapturedReset) -> Option<(Cause, Known)> {
        let Verdict { cause, known, .. } = Verdict::of(&reset.evidence(), reset.packet.from);
        (reset.place == Place::First).then_some((cause, known))
    }

    fn causes(looks: &[&[Packet]]) -> Vec<Option<(Cause, Known)>> {
        told(looks).iter().map(cause).collect()
    }

    fn handshake(at: u64, isn: u32) -> [Packet; 3] {
        [
            to_server(at, "[S]", [isn, 0], 0),
            to_client(at, "[S.]", [499, isn + 1], 0),
            to_server(at, "[.]", [isn + 1, 500], 0),
        ]
    }

    fn request(at: u64) -> Packet {
        to_server(at, "[P.]", [100, 500], 10)
    }

    fn close(at: u64, ack: u32) -> Packet {
        to_client(at, "[R.]", [500, ack], 0)
    }

    fn answer(at: u64) -> Packet {
        to_client(at, "[R]", [500, 0], 0)
    }

    #[test]
    fn captured_resets_after_the_first_are_echoes_until_the_ports_are_used_again() {
        let begun = [&handshake(0, 99)[..], &[request(1), close(2, 110)]].concat();
        let echo = [to_server(3, "[P.]", [110, 500], 1), answer(3)];
        let again = [
            &handshake(4, 7999)[..],
            &[to_client(5, "[R.]", [500, 8000], 0)],
        ]
        .concat();
        let unread = Some((Cause::UnreadAtClose, Known::Inferred));
        let abort = Some((Cause::LingerZero, Known::Proved));
        assert_eq!(causes(&[&begun, &echo, &again]), [unread, None, abort]);
        // If all come in one look, the first RST is still told of the connection that it ended.
        let all = [&begun[..], &echo, &again].concat();
        assert_eq!(causes(&[&all]), [unread, None, abort]);
    }

    #[test]
    fn the_data_that_a_rst_answers_may_be_captured_after_it() {
        let begun = [&handshake(0, 99)[..], &[answer(3)]].concat();
        let explained = Some((Cause::DataAfterClose, Known::Proved));
        assert_eq!(causes(&[&begun, &[request(2)]]), [explained]);
    }

    #[test]
    fn an_echo_that_overtook_its_cause_is_an_echo() {
        let begun = [&handshake(0, 99)[..], &[request(1), answer(2)]].concat();
        let told = told(&[&begun, &[close(3, 110)], &[answer(4)], &[answer(200)]]);
        let places: Vec<_> = told
            .iter()
            .map(|it| (it.packet.at.as_millis(), it.place))
            .collect();
        let echoes = [2, 4, 200].map(|at| (at, Place::Echo));
        assert_eq!(places, [&[(3, Place::First)], &echoes[..]].concat());
        assert_eq!(
            cause(&told[0]),
            Some((Cause::UnreadAtClose, Known::Inferred))
        );
    }

    /// If a port is used again, the RSTs of its last connection are handed on at once, and no others.
    #[test]
    fn a_rst_that_answers_waits_whatever_other_connections_do() {
        let of_other = |packet: Packet| Packet {
            from: SocketAddr::new(packet.from.ip(), 5000),
            ..packet
        };
        let other = |isn| [of_other(to_server(3, "[S]", [isn, 0], 0))];
        let begun = [
            &other(99)[..],
            &handshake(0, 99),
            &[request(1), to_server(1, "[P.]", [110, 500], 10), answer(2)],
        ]
        .concat();
        let told = told(&[&begun, &other(7999), &[close(3, 120)]]);
        let places: Vec<_> = told.iter().map(|it| (it.packet.flags, it.place)).collect();
        let flags = [close(0, 0), answer(0)].map(|packet| packet.flags);
        assert_eq!(places, [(flags[0], Place::First), (flags[1], Place::Echo)]);
        assert_eq!(
            cause(&told[0]),
            Some((Cause::UnreadAtClose, Known::Inferred))
        );
    }

    #[test]
    fn a_rst_that_answers_waits_for_the_rst_of_a_close_for_a_limited_time() {
        let (out, mut resets) = mpsc::channel(64);
        let (mut sender, mut store) = (ResetSender::new(out), Store::new(100_000));
        sender.see(&answer(10), &mut store);
        store.push(answer(10));
        for (now, told) in [(11, 0), (59, 0), (60, 1)] {
            sender.tell(Duration::from_millis(now), &mut store);
            assert_eq!(resets.len(), told, "{now}");
        }
        assert!(!sender.waits() && resets.try_recv().is_ok());
    }

    #[test]
    fn nothing_is_proved_of_a_connection_without_its_beginning() {
        let inferred = |cause| [Some((cause, Known::Inferred))];
        assert_eq!(causes(&[&[close(1, 9)]]), inferred(Cause::Unknown));
        assert_eq!(
            causes(&[&[request(1), close(2, 9)]]),
            inferred(Cause::UnreadAtClose)
        );
        assert_eq!(causes(&[&[request(1), answer(2)]]), inferred(Cause::Gone));
        let closed = [to_client(1, "[F.]", [500, 100], 0), request(2), answer(3)];
        assert_eq!(causes(&[&closed]), inferred(Cause::DataAfterClose));
        let whole = [&handshake(0, 99)[..], &closed].concat();
        assert_eq!(
            causes(&[&whole]),
            [Some((Cause::DataAfterClose, Known::Proved))]
        );
    }

    #[test]
    fn a_rst_that_answers_a_segment_without_data_is_not_data_after_close() {
        let scan = [
            to_server(0, "[S]", [99, 0], 0),
            to_client(1, "[S.]", [499, 100], 0),
            to_server(2, "[R]", [100, 0], 0),
        ];
        assert_eq!(causes(&[&scan]), [Some((Cause::Gone, Known::Inferred))]);
        let refused = [
            to_server(0, "[S]", [99, 0], 0),
            to_client(1, "[R.]", [0, 100], 0),
        ];
        assert_eq!(causes(&[&refused]), [Some((Cause::Refused, Known::Proved))]);
    }

    #[test]
    fn a_half_close_of_the_client_is_not_data_after_close() {
        let half_closed = |rst: Packet| {
            let rest = [
                to_server(1, "[F.]", [100, 500], 0),
                to_client(2, "[P.]", [500, 101], 5),
                to_server(3, "[.]", [101, 505], 0),
                rst,
            ];
            causes(&[&[&handshake(0, 99)[..], &rest].concat()])
        };
        let abort = to_client(4, "[R.]", [505, 101], 0);
        assert_eq!(
            half_closed(abort),
            [Some((Cause::LingerZero, Known::Proved))]
        );
        let answer = to_client(4, "[R]", [505, 0], 0);
        assert_eq!(half_closed(answer), [Some((Cause::Gone, Known::Inferred))]);
    }

    #[test]
    fn resets_that_find_no_room_are_counted() {
        let (out, _resets) = mpsc::channel(1);
        let (mut sender, mut store) = (ResetSender::new(out), Store::new(100_000));
        for at in 0..3 {
            sender.see(&answer(at), &mut store);
        }
        sender.finish(&mut store);
        assert_eq!((sender.dropped(), sender.waits()), (2, false));
    }
}
