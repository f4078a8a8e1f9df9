use std::mem;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::capture::Packets;
use super::conversation::{opens, pair_of};
use super::packet::Packet;
use super::store::Store;
use super::story::Ending;
use crate::{Cause, Evidence, Known, Pair, Place, Unavailable, Verdict};

/// Most resets that wait to be taken; more are lost, and counted.
const MOST_WAITING: usize = 16_384;

/// How long a RST that answers a segment waits for that of a close, and how many do at most. See `Ledger`.
const HOLD: Duration = Duration::from_millis(50);
const MOST_HELD: usize = 4096;

/// A RST that was captured: one that this machine sent, received or passed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CapturedReset {
    /// The segment.
    pub packet: Packet,
    /// Whether it decided its connection.
    pub place: Place,
    /// If it did, how it ended the connection; `None` if too little is kept of that.
    pub ending: Option<Ending>,
}

impl CapturedReset {
    /// Why it was sent, and how that is known; `None` for an echo.
    pub fn cause(&self) -> Option<(Cause, Known)> {
        if self.place == Place::Echo {
            return None;
        }
        let evidence = Evidence {
            packets: self.ending,
            ..Evidence::default()
        };
        let Verdict { cause, known, .. } = Verdict::of(&evidence, self.packet.from);
        Some((cause, known))
    }
}

/// What a capture could not take in time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lost {
    /// Packets: what they would have shown of a cause is missing.
    pub packets: u64,
    /// Resets, which are captured apart: they are missing themselves.
    pub resets: u64,
}

/// The resets of some ports, as they are captured.
#[derive(Debug)]
pub struct CapturedResets {
    // After the capture has ended there is no more to come.
    packets: Packets,
    resets: mpsc::Receiver<CapturedReset>,
}

impl CapturedResets {
    /// Captures the TCP segments from or to `ports`, or all of them if there are none; see [`Packets::open`].
    ///
    /// # Errors
    /// As [`Packets::open`].
    pub fn open(ports: &[u16]) -> Result<Self, Unavailable> {
        let (sender, resets) = mpsc::channel(MOST_WAITING);
        let packets = Packets::start(ports, Some(Teller::new(sender)))?;
        Ok(Self { packets, resets })
    }

    /// The next one, some milliseconds after it was captured; `None` if the capture has failed. Nothing is lost if
    /// the future is dropped.
    pub async fn next(&mut self) -> Option<CapturedReset> {
        self.resets.recv().await
    }

    /// Adds those that are ready to be taken.
    pub fn ready(&mut self, resets: &mut Vec<CapturedReset>) {
        while let Ok(reset) = self.resets.try_recv() {
            resets.push(reset);
        }
    }

    /// What came faster than it could be taken.
    pub fn lost(&self) -> Lost {
        Lost {
            packets: self.packets.lost(),
            resets: self.packets.lost_resets(),
        }
    }

    /// Ends the capture, and adds what was captured until now.
    pub fn finish(&mut self, resets: &mut Vec<CapturedReset>) {
        self.packets.end();
        self.ready(resets);
    }
}

/// The side of the capture: it hands on each RST.
///
/// A segment that explains a RST may be captured after it, on another processor: so a RST waits for the packets that
/// are taken next. One that answers a segment may have overtaken that of a close (see `Conversation::ending`), and
/// waits longer if there was none.
#[derive(Debug)]
pub(super) struct Teller {
    out: mpsc::Sender<CapturedReset>,
    /// Of earlier looks at the capture, and of this one.
    ripe: Vec<Packet>,
    fresh: Vec<Packet>,
    untold: u64,
}

impl Teller {
    pub(super) fn new(out: mpsc::Sender<CapturedReset>) -> Self {
        Self {
            out,
            ripe: Vec::new(),
            fresh: Vec::new(),
            untold: 0,
        }
    }

    /// RSTs for which there was no room.
    pub(super) fn untold(&self) -> u64 {
        self.untold
    }

    /// Whether there is something to tell later.
    pub(super) fn waits(&self) -> bool {
        !self.ripe.is_empty() || !self.fresh.is_empty()
    }

    /// A packet, before it goes into the store.
    pub(super) fn see(&mut self, packet: &Packet, store: &mut Store) {
        if self.waits() && opens(packet) && store.is_over(packet) {
            self.finish_one(&pair_of(packet), store);
        }
        if packet.flags.rst() {
            self.fresh.push(packet.clone());
        }
    }

    /// A look at the capture has ended, at `now`: hands on what has waited for long enough.
    pub(super) fn tell(&mut self, now: Duration, store: &mut Store) {
        let ripe = mem::take(&mut self.ripe);
        let most = if ripe.len() > MOST_HELD {
            Duration::ZERO
        } else {
            HOLD
        };
        let (own, answers): (Vec<_>, Vec<_>) = ripe.into_iter().partition(|it| it.flags.ack());
        for packet in own {
            self.hand_on(packet, store);
        }
        for packet in answers {
            if store.is_reset_told(&pair_of(&packet)) || packet.at + most <= now {
                self.hand_on(packet, store);
            } else {
                self.ripe.push(packet);
            }
        }
        self.fresh.sort_by_key(|packet| packet.at);
        self.ripe.append(&mut self.fresh);
    }

    /// Hands on everything: no more packets will come that explain it.
    pub(super) fn finish(&mut self, store: &mut Store) {
        self.tell(Duration::MAX, store);
        self.tell(Duration::MAX, store);
    }

    /// Hands on those of a connection that is about to be replaced by another one. What explains those of others may
    /// be yet to come.
    fn finish_one(&mut self, pair: &Pair, store: &mut Store) {
        let is_its = |packet: &mut Packet| pair_of(packet) == *pair;
        let mut its: Vec<_> = self.ripe.extract_if(.., is_its).collect();
        its.extend(self.fresh.extract_if(.., is_its));
        its.sort_by_key(|packet| (!packet.flags.ack(), packet.at));
        for packet in its {
            self.hand_on(packet, store);
        }
    }

    fn hand_on(&mut self, packet: Packet, store: &mut Store) {
        let pair = pair_of(&packet);
        let is_first = !store.is_reset_told(&pair);
        store.reset_is_told(&pair);
        let conversation = is_first.then(|| store.conversation(&pair)).flatten();
        let reset = CapturedReset {
            place: if is_first { Place::First } else { Place::Echo },
            ending: conversation.and_then(|it| it.ended_by(&packet)),
            packet,
        };
        match self.out.try_send(reset) {
            Ok(()) | Err(TrySendError::Closed(_)) => {}
            Err(TrySendError::Full(_)) => self.untold += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::super::fixture::{to_client, to_server};
    use super::*;

    /// What is told of packets that come in these looks at the capture.
    fn told(looks: &[&[Packet]]) -> Vec<CapturedReset> {
        let (sender, mut resets) = mpsc::channel(64);
        let (mut teller, mut store) = (Teller::new(sender), Store::new(100_000));
        for look in looks {
            let mut now = Duration::ZERO;
            for packet in *look {
                teller.see(packet, &mut store);
                store.push(packet.clone());
                now = packet.at;
            }
            teller.tell(now, &mut store);
        }
        teller.finish(&mut store);
        let mut told = Vec::new();
        while let Ok(reset) = resets.try_recv() {
            told.push(reset);
        }
        told
    }

    fn causes(looks: &[&[Packet]]) -> Vec<Option<(Cause, Known)>> {
        told(looks).iter().map(CapturedReset::cause).collect()
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
    fn later_ones_are_echoes_until_the_ports_are_used_again() {
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
        // All in one look: the first one is told of the connection that it ended.
        let all = [&begun[..], &echo, &again].concat();
        assert_eq!(causes(&[&all]), [unread, None, abort]);
    }

    #[test]
    fn what_explains_it_may_be_captured_after_it() {
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
            told[0].cause(),
            Some((Cause::UnreadAtClose, Known::Inferred))
        );
    }

    /// A port that is used again hurries the RSTs of its own last connection, and no other's.
    #[test]
    fn an_answer_waits_whatever_other_connections_do() {
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
            told[0].cause(),
            Some((Cause::UnreadAtClose, Known::Inferred))
        );
    }

    #[test]
    fn an_answer_waits_for_the_rst_of_a_close_but_not_for_ever() {
        let (sender, mut resets) = mpsc::channel(64);
        let (mut teller, mut store) = (Teller::new(sender), Store::new(100_000));
        teller.see(&answer(10), &mut store);
        store.push(answer(10));
        for (now, told) in [(11, 0), (59, 0), (60, 1)] {
            teller.tell(Duration::from_millis(now), &mut store);
            assert_eq!(resets.len(), told, "{now}");
        }
        assert!(!teller.waits() && resets.try_recv().is_ok());
    }

    #[test]
    fn of_a_connection_without_its_beginning_nothing_is_proved() {
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
    fn an_answer_to_a_segment_without_data_is_no_data_after_close() {
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
    fn a_client_that_half_closed_and_sent_nothing_sent_no_data() {
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
    fn what_finds_no_room_is_counted() {
        let (sender, _resets) = mpsc::channel(1);
        let (mut teller, mut store) = (Teller::new(sender), Store::new(100_000));
        for at in 0..3 {
            teller.see(&answer(at), &mut store);
        }
        teller.finish(&mut store);
        assert_eq!((teller.untold(), teller.waits()), (2, false));
    }
}
