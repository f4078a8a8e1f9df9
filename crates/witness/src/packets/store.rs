//! Keeps the packets of the latest connections in bounded memory.

use std::collections::{HashMap, VecDeque};
use std::mem;
use std::time::Duration;

use super::conversation::{Conversation, Kept, pair_of};
use super::packet::Packet;
use crate::evidence::Pair;

/// The packets of the latest connections. If they take too much memory, the connections that have been quiet for
/// longest go first.
#[derive(Debug)]
pub(super) struct Store {
    max_bytes: usize,
    bytes: usize,
    kept: HashMap<Pair, Kept>,
    /// Each connection once, with the time of its last packet when it was put here.
    order: VecDeque<(Duration, Pair)>,
    lost_until: Option<Duration>,
}

/// About the memory that the map and the queue take for a connection.
const ENTRY_BYTES: usize = 2 * (size_of::<Pair>() + size_of::<(Duration, Pair)>());

impl Store {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self {
            max_bytes,
            bytes: 0,
            kept: HashMap::new(),
            order: VecDeque::new(),
            lost_until: None,
        }
    }

    pub(super) fn push(&mut self, packet: Packet) {
        let pair = pair_of(&packet);
        let order = &mut self.order;
        let mut before = 0;
        let kept = self
            .kept
            .entry(pair)
            .and_modify(|kept| {
                before = ENTRY_BYTES + kept.bytes();
                if kept.is_over(&packet) {
                    mem::take(kept);
                }
            })
            .or_insert_with(|| {
                order.push_back((packet.at, pair));
                Kept::default()
            });
        kept.push(packet);
        self.bytes += ENTRY_BYTES + kept.bytes();
        self.bytes -= before;
        while self.bytes > self.max_bytes && self.forget() {}
    }

    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn conversation(&self, pair: &Pair) -> Option<Conversation> {
        let mut conversation = self.kept.get(pair)?.conversation();
        let first = conversation.packets().first()?.at;
        conversation.lacks |= self.lost_until.is_some_and(|lost| first <= lost);
        Some(conversation)
    }

    /// Whether `packet` opens another connection than the one that is kept of its addresses.
    pub(super) fn is_over(&self, packet: &Packet) -> bool {
        let kept = self.kept.get(&pair_of(packet));
        kept.is_some_and(|kept| kept.is_over(packet))
    }

    /// Whether a RST of the connection has been handed on.
    pub(super) fn is_reset_told(&self, pair: &Pair) -> bool {
        self.kept.get(pair).is_some_and(|kept| kept.reset_told)
    }

    /// Notes that a RST of the connection has been handed on.
    pub(super) fn set_reset_told(&mut self, pair: &Pair) {
        if let Some(kept) = self.kept.get_mut(pair) {
            kept.reset_told = true;
        }
    }

    /// Notes that packets were lost before `now`, so that any connection that is kept may lack some.
    pub(super) fn lost(&mut self, now: Duration) {
        self.lost_until = Some(now);
    }

    /// Forgets the first connection of the queue; if it had packets since it was put there, puts it to the end instead.
    /// False if the queue is empty.
    fn forget(&mut self) -> bool {
        let Some((seen, pair)) = self.order.pop_front() else {
            return false;
        };
        let last = self
            .kept
            .get(&pair)
            .and_then(Kept::last)
            .map(|last| last.at);
        match last {
            Some(last) if last > seen => self.order.push_back((last, pair)),
            _ => {
                let gone = self.kept.remove(&pair);
                self.bytes -= gone.map_or(0, |kept| ENTRY_BYTES + kept.bytes());
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::fixture::segment;
    use super::*;

    fn push(store: &mut Store, at: u64, port: u16, flags: &str) -> Pair {
        let packet = segment(at, [port, 80], flags, [at as u32, 0], 0);
        let pair = pair_of(&packet);
        store.push(packet);
        pair
    }

    #[test]
    fn connections_that_were_quiet_for_longest_go_first() {
        let one = ENTRY_BYTES + size_of::<Kept>() + 4 * size_of::<Packet>();
        // Each packet has 40 bytes, and one connection has two packets.
        let mut store = Store::new(10 * (one + 40) + 40);
        let pairs: Vec<_> = (0..10)
            .map(|at| push(&mut store, at, 4000 + at as u16, "[S]"))
            .collect();
        push(&mut store, 10, 4000, "[.]");
        push(&mut store, 11, 5000, "[S]");
        let kept: Vec<_> = pairs
            .iter()
            .map(|pair| store.conversation(pair).is_some())
            .collect();
        assert_eq!(
            kept,
            [true, false, true, true, true, true, true, true, true, true]
        );
        assert_eq!(store.conversation(&pairs[0]).unwrap().packets().len(), 2);
    }

    #[test]
    fn a_connection_that_was_kept_when_packets_were_lost_may_lack_some() {
        let mut store = Store::new(100_000);
        let refused = |store: &mut Store, at: u64, port| {
            let pair = push(store, at, port, "[S]");
            let rst = segment(at + 1, [80, port], "[R.]", [0, at as u32 + 1], 0);
            store.push(rst);
            store.conversation(&pair).unwrap().ending().is_of_a_part()
        };
        assert!(!refused(&mut store, 1, 4000));
        store.lost(Duration::from_millis(5));
        assert!(refused(&mut store, 4, 4001));
        assert!(!refused(&mut store, 6, 4002));
    }

    proptest! {
        #[test]
        fn a_store_never_takes_more_memory_than_its_limit(
            max in 0_usize..100_000,
            packets in prop::collection::vec((0_u16..30, prop::bool::weighted(0.1)), 0..600),
        ) {
            let mut store = Store::new(max);
            for (at, (port, syn)) in packets.into_iter().enumerate() {
                push(&mut store, at as u64, port, if syn { "[S]" } else { "[.]" });
                let bytes: usize = store.kept.values().map(|kept| ENTRY_BYTES + kept.bytes()).sum();
                prop_assert_eq!(store.bytes, bytes);
                prop_assert!(bytes <= max);
                prop_assert_eq!(store.order.len(), store.kept.len());
            }
        }
    }
}
