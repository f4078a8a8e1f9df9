//! Remembers which threads were killed of late, and which connections they closed as they died.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::net::SocketAddr;
use std::time::Duration;

use super::event::{CloseEvent, KillEvent, ResetEvent};
use super::stamp::Stamp;

/// Most killed threads that are remembered, and most connections that they closed.
const MAX_KILLED: usize = 4096;
const MAX_CLOSED: usize = 65_536;

/// Longest time that a killed thread takes to close its files: it gives its memory back first. A thread that closes a
/// socket later than this may be another one with the same number.
const MAX_DEATH: Duration = Duration::from_secs(10);

/// Which threads were killed of late, and what the kernel closed for them.
#[derive(Debug)]
pub(super) struct Killed {
    threads: Recent<u32>,
    /// By the side that was closed, and its peer.
    closed: Recent<(SocketAddr, SocketAddr)>,
}

impl Default for Killed {
    fn default() -> Self {
        Self {
            threads: Recent::new(MAX_KILLED),
            closed: Recent::new(MAX_CLOSED),
        }
    }
}

impl Killed {
    /// A thread was killed.
    pub(super) fn see(&mut self, event: &KillEvent) {
        self.threads.insert(event.stamp.pid, event.stamp.time);
    }

    /// Takes a close. If the thread that closed had been killed, returns when.
    pub(super) fn closed(&mut self, event: &CloseEvent) -> Option<Duration> {
        let (ends, killed) = ((event.side, event.peer), self.before(&event.stamp));
        match killed {
            Some(at) => self.closed.insert(ends, at),
            // An entry for these ports is of an earlier connection.
            None => self.closed.remove(&ends),
        }
        killed
    }

    /// If the close of a killed thread led to this RST, returns when the thread was killed: the close itself sent the
    /// RST, or bytes came after it.
    pub(super) fn reset(&self, event: &ResetEvent) -> Option<Duration> {
        let own = event.own_call.then(|| self.before(&event.stamp)).flatten();
        own.or_else(|| self.closed.get(&(event.source, event.destination?)))
    }

    fn before(&self, stamp: &Stamp) -> Option<Duration> {
        let at = self.threads.get(&stamp.pid)?;
        let since = stamp.time.checked_sub(at)?;
        (since <= MAX_DEATH).then_some(at)
    }
}

/// The latest keys, each with the time of its latest event.
#[derive(Debug)]
struct Recent<K> {
    max: usize,
    at: HashMap<K, Duration>,
    order: VecDeque<(K, Duration)>,
}

impl<K: Copy + Eq + Hash> Recent<K> {
    fn new(max: usize) -> Self {
        Self {
            max,
            at: HashMap::new(),
            order: VecDeque::new(),
        }
    }

    fn insert(&mut self, key: K, at: Duration) {
        self.at.insert(key, at);
        self.order.push_back((key, at));
        if self.order.len() > self.max
            && let Some((key, at)) = self.order.pop_front()
            // The same key may have come again since.
            && self.at.get(&key) == Some(&at)
        {
            self.at.remove(&key);
        }
    }

    fn remove(&mut self, key: &K) {
        self.at.remove(key);
    }

    fn get(&self, key: &K) -> Option<Duration> {
        self.at.get(key).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::fixture;

    fn stamp(pid: u32, seconds: u64) -> Stamp {
        fixture::stamp(pid, Duration::from_secs(seconds))
    }

    fn kill(pid: u32, seconds: u64) -> KillEvent {
        KillEvent {
            stamp: stamp(pid, seconds),
        }
    }

    #[test]
    fn an_event_before_the_kill_of_its_thread_or_long_after_is_not_due_to_the_kill() {
        let mut killed = Killed::default();
        killed.see(&kill(7, 100));
        let before = |pid, seconds| killed.before(&stamp(pid, seconds));
        let at = Some(Duration::from_secs(100));
        assert_eq!(
            [before(7, 99), before(7, 100), before(7, 110)],
            [None, at, at]
        );
        assert_eq!([before(7, 111), before(8, 100)], [None, None]);
    }

    #[test]
    fn only_the_newest_killed_threads_are_remembered() {
        let mut killed = Killed::default();
        killed.see(&kill(0, 1));
        for n in 1..=10_000 {
            killed.see(&kill(n % 5000, 2));
        }
        let Recent { at, order, .. } = &killed.threads;
        assert!(at.len() <= MAX_KILLED && order.len() <= MAX_KILLED);
        assert!(
            killed.before(&stamp(0, 2)).is_some(),
            "killed again of late"
        );
        assert!(killed.before(&stamp(1, 2)).is_none());
    }
}
