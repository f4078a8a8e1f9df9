//! Tells the RST that decided a connection from its echoes.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use rstlab_wire::monotonic_now;
use tokio::time::sleep;

use super::event::ResetEvent;
use crate::evidence::{Pair, Place, Reason, State};

/// How long a RST that was sent for want of a socket is held back, because the trace may tell only later of the RST
/// that explains it.
///
/// A close makes the socket invisible, sends its RST and only then writes the trace line
/// (`tcp_send_active_reset`); a segment that arrives in between, on another processor, is answered first.
const HOLD: Duration = Duration::from_millis(50);

/// How long after the first RST of a connection its segments, some of them retransmissions, may be answered with
/// echoes.
const ECHOES: Duration = Duration::from_secs(10);

/// How long after one side's RST a RST of the other side may have crossed it on the way. After a later one, the port is
/// in use again.
const CROSSING: Duration = Duration::from_secs(1);

/// Most connections that are remembered, and most RSTs that are held back.
const MAX_SEEN: usize = 65_536;
const MAX_HELD: usize = 4096;

/// A RST and its place among those of its connection.
pub(super) type Judged = (ResetEvent, Place);

/// Remembers which connections were reset lately, to tell the RST that decided from its echoes.
///
/// Its memory is bounded in time and number: of too many connections the oldest are forgotten.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    seen: HashMap<Pair, FirstRst>,
    order: VecDeque<(Duration, Pair)>,
    held: VecDeque<(Pair, ResetEvent)>,
    /// How many RSTs of each connection are held back.
    held_of: HashMap<Pair, usize>,
}

/// The connection of a RST, where the kernel names both ends.
fn pair_of(event: &ResetEvent) -> Option<Pair> {
    Some(Pair::new(event.source, event.destination?))
}

/// The first RST of a connection.
#[derive(Debug, Clone, Copy)]
struct FirstRst {
    at: Duration,
    /// The side whose socket sent it; `None` if no socket did.
    from: Option<SocketAddr>,
}

impl FirstRst {
    /// Whether `event` belongs to a later connection between the same ports.
    fn is_over(&self, event: &ResetEvent) -> bool {
        let age = event.stamp.time.saturating_sub(self.at);
        if has_no_socket(event) {
            return age > ECHOES;
        }
        match self.from {
            // A socket sends such a RST once: this is another socket.
            Some(from) => from == event.source || age > CROSSING,
            None => true,
        }
    }
}

/// Whether the RST was sent for want of a socket: nobody listens, or the listener does not know the connection.
fn has_no_socket(event: &ResetEvent) -> bool {
    event.reason == Some(Reason::NoSocket)
        || matches!(event.state, Some(State::Listen | State::NoSocket))
}

/// The place of a RST of a listener, whose other end the kernel does not name. With the reason TCP_FLAGS it answers a
/// segment of a connection that is gone; with another reason it refuses a connection that is being made.
fn alone(event: &ResetEvent) -> Place {
    match event.reason {
        Some(Reason::Flags) => Place::Echo,
        _ => Place::First,
    }
}

impl Ledger {
    /// Takes a RST. RSTs whose place is now known go to `judged`, perhaps without this one.
    pub(super) fn see(&mut self, event: ResetEvent, judged: &mut Vec<Judged>) {
        self.due(event.stamp.time, judged);
        self.forget(event.stamp.time);
        let Some(pair) = pair_of(&event) else {
            let place = alone(&event);
            judged.push((event, place));
            return;
        };
        if self
            .seen
            .get(&pair)
            .is_some_and(|seen| !seen.is_over(&event))
        {
            judged.push((event, Place::Echo));
        } else if has_no_socket(&event) {
            self.held.push_back((pair, event));
            *self.held_of.entry(pair).or_default() += 1;
            if self.held.len() > MAX_HELD {
                self.release(judged);
            }
        } else {
            self.first(pair, event, judged);
        }
    }

    /// When the oldest RST that is held back can be judged, on `CLOCK_MONOTONIC`.
    fn next_due(&self) -> Option<Duration> {
        self.held.front().map(|(_, event)| event.stamp.time + HOLD)
    }

    /// Waits until the oldest RST that is held back can be judged; for ever while none is.
    pub(super) async fn until_due(&self) {
        match self.next_due() {
            Some(at) => sleep(at.saturating_sub(monotonic_now())).await,
            None => std::future::pending().await,
        }
    }

    /// Judges what has been held back for long enough at `now`; everything, at [`Duration::MAX`].
    pub(super) fn due(&mut self, now: Duration, judged: &mut Vec<Judged>) {
        while self.next_due().is_some_and(|due| due <= now) {
            self.release(judged);
        }
    }

    fn release(&mut self, judged: &mut Vec<Judged>) {
        let Some((pair, event)) = self.held.pop_front() else {
            return;
        };
        if let Entry::Occupied(mut held) = self.held_of.entry(pair) {
            *held.get_mut() -= 1;
            if *held.get() == 0 {
                held.remove();
            }
        }
        self.first(pair, event, judged);
    }

    /// Judges `event` as the first RST of its connection, and the RSTs of the connection that are held back as echoes.
    fn first(&mut self, pair: Pair, event: ResetEvent, judged: &mut Vec<Judged>) {
        let seen = FirstRst {
            at: event.stamp.time,
            from: (!has_no_socket(&event)).then_some(event.source),
        };
        self.seen.insert(pair, seen);
        self.order.push_back((event.stamp.time, pair));
        judged.push((event, Place::First));
        if self.held_of.remove(&pair).is_some() {
            let held = std::mem::take(&mut self.held).into_iter();
            let (echoes, others) = held.partition(|(of, _)| *of == pair);
            self.held = others;
            let echoes: VecDeque<_> = echoes;
            judged.extend(echoes.into_iter().map(|(_, event)| (event, Place::Echo)));
        }
    }

    fn forget(&mut self, now: Duration) {
        while let Some(&(at, pair)) = self.order.front() {
            if self.order.len() <= MAX_SEEN && now.saturating_sub(at) <= ECHOES {
                return;
            }
            self.order.pop_front();
            // The same ports may have been reset again since.
            if self.seen.get(&pair).is_some_and(|seen| seen.at == at) {
                self.seen.remove(&pair);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernel::fixture::reset_event;

    const SERVER: &str = "127.0.0.1:80";
    const CLIENT: &str = "127.0.0.1:4000";

    fn event(millis: u64, from: &str, to: &str, reason: Reason, state: State) -> ResetEvent {
        let (from, to) = (from.parse().unwrap(), to.parse().ok());
        reset_event(millis, from, to, reason, state)
    }

    fn close(millis: u64) -> ResetEvent {
        event(millis, SERVER, CLIENT, Reason::AbortOnClose, State::Close)
    }

    fn no_socket(millis: u64) -> ResetEvent {
        event(millis, SERVER, CLIENT, Reason::NoSocket, State::NoSocket)
    }

    /// For each RST, its time in milliseconds and whether it was the first.
    fn judge(events: impl IntoIterator<Item = ResetEvent>) -> Vec<(u64, bool)> {
        let (mut ledger, mut judged) = (Ledger::default(), Vec::new());
        for event in events {
            ledger.see(event, &mut judged);
        }
        ledger.due(Duration::MAX, &mut judged);
        let told = |(event, place): &Judged| {
            let millis = event.stamp.time.as_millis() as u64;
            (millis, *place == Place::First)
        };
        judged.iter().map(told).collect()
    }

    #[test]
    fn later_resets_are_echoes_in_either_direction() {
        let listener = event(5, SERVER, CLIENT, Reason::Flags, State::Listen);
        let other_side = event(6, CLIENT, SERVER, Reason::AbortOnClose, State::Close);
        let judged = judge([close(1), no_socket(4), listener, other_side]);
        assert_eq!(judged, [(1, true), (4, false), (5, false), (6, false)]);
    }

    #[test]
    fn a_reset_by_a_listener_that_names_no_peer_is_an_echo() {
        let alone = |reason| {
            let mut event = event(1, SERVER, CLIENT, reason, State::Listen);
            event.destination = None;
            judge([event])
        };
        assert_eq!(alone(Reason::Flags), [(1, false)]);
        assert_eq!(alone(Reason::InvalidSyn), [(1, true)]);
    }

    #[test]
    fn resets_of_two_connections_are_both_first() {
        let other = event(
            2,
            SERVER,
            "127.0.0.1:4001",
            Reason::AbortOnClose,
            State::Close,
        );
        assert_eq!(judge([close(1), other]), [(1, true), (2, true)]);
    }

    #[test]
    fn an_echo_that_overtook_its_cause_is_an_echo() {
        let judged = judge([no_socket(1), no_socket(2), close(3)]);
        assert_eq!(judged, [(3, true), (1, false), (2, false)]);
    }

    #[test]
    fn if_no_cause_is_seen_the_oldest_echo_is_the_first_reset() {
        let late = event(
            200,
            SERVER,
            "127.0.0.1:4001",
            Reason::AbortOnClose,
            State::Close,
        );
        let judged = judge([no_socket(1), no_socket(2), late]);
        assert_eq!(judged, [(1, true), (2, false), (200, true)]);
    }

    #[test]
    fn a_reset_that_is_held_back_is_judged_when_it_is_due() {
        let (mut ledger, mut judged) = (Ledger::default(), Vec::new());
        ledger.see(no_socket(1), &mut judged);
        assert_eq!(ledger.next_due(), Some(Duration::from_millis(51)));
        ledger.due(Duration::from_millis(50), &mut judged);
        assert!(judged.is_empty());
        ledger.due(Duration::from_millis(51), &mut judged);
        assert_eq!((judged.len(), ledger.next_due()), (1, None));
    }

    #[test]
    fn a_reset_of_a_port_that_is_in_use_again_is_a_first_one() {
        assert_eq!(judge([close(1), close(2)]), [(1, true), (2, true)]);
        assert_eq!(
            judge([close(1), no_socket(9_000)]),
            [(1, true), (9_000, false)]
        );
        assert_eq!(
            judge([close(1), no_socket(11_000)]),
            [(1, true), (11_000, true)]
        );
        let from_client = |millis| event(millis, CLIENT, SERVER, Reason::TcpState, State::Close);
        assert_eq!(
            judge([close(1), from_client(900)]),
            [(1, true), (900, false)]
        );
        assert_eq!(
            judge([close(1), from_client(1_100)]),
            [(1, true), (1_100, true)]
        );
    }

    #[test]
    fn the_memory_of_a_ledger_is_bounded_in_number_and_time() {
        let (mut ledger, mut judged) = (Ledger::default(), Vec::new());
        for n in 0..200_000_u32 {
            let client = format!("10.{}.{}.{}:4000", n >> 16, (n >> 8) & 255, n & 255);
            let mut event = if n % 2 == 0 { close(1) } else { no_socket(1) };
            event.destination = client.parse().ok();
            ledger.see(event, &mut judged);
            assert!(ledger.held.len() <= MAX_HELD);
            assert!(
                ledger.order.len() <= MAX_SEEN + MAX_HELD
                    && ledger.seen.len() <= ledger.order.len()
            );
        }
        ledger.due(Duration::MAX, &mut judged);
        assert!(ledger.held_of.is_empty());
        assert_eq!(judged.len(), 200_000, "each is told once");
        ledger.see(close(60_000), &mut judged);
        assert_eq!((ledger.seen.len(), ledger.order.len()), (1, 1));
    }

    proptest! {
        /// Whatever comes, each RST is judged once, and each echo after a first RST of its connection.
        #[test]
        fn each_reset_is_judged_once(events in prop::collection::vec((0_u64..20_000, 0_u16..3, any::<bool>(), 0..4), 0..200)) {
            let (mut ledger, mut judged) = (Ledger::default(), Vec::new());
            let count = events.len();
            for (millis, port, from_server, kind) in events {
                let client = format!("127.0.0.1:{}", 4000 + port);
                let (from, to) = if from_server { (SERVER, client.as_str()) } else { (client.as_str(), SERVER) };
                let (reason, state) = match kind {
                    0 => (Reason::NoSocket, State::NoSocket),
                    1 => (Reason::Flags, State::Listen),
                    2 => (Reason::AbortOnClose, State::Close),
                    _ => (Reason::TimewaitSocket, State::TimeWait),
                };
                ledger.see(event(millis, from, to, reason, state), &mut judged);
            }
            ledger.due(Duration::MAX, &mut judged);
            prop_assert_eq!(judged.len(), count);
            prop_assert!(ledger.held.is_empty() && ledger.held_of.is_empty());
            let mut begun = std::collections::HashSet::new();
            for (event, place) in judged {
                let new = begun.insert(pair_of(&event));
                prop_assert!(place == Place::First || !new, "an echo of nothing: {:?}", event);
            }
        }
    }
}
