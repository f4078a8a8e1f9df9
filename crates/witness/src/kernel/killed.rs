use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::{KillEvent, Stamp};

/// Most killed threads that are remembered.
const MOST_KILLED: usize = 4096;

/// Longest time that a killed thread takes to close what it has open: its memory goes first. Later its number may be
/// another's.
const LONGEST_DEATH: Duration = Duration::from_secs(10);

/// Remembers which threads were killed of late: what they still do, the kernel does for them.
#[derive(Debug, Default)]
pub struct Killed {
    at: HashMap<u32, Duration>,
    order: VecDeque<(u32, Duration)>,
}

impl Killed {
    /// Adds a thread; of too many the oldest are forgotten.
    pub fn see(&mut self, event: &KillEvent) {
        let Stamp { pid, time, .. } = event.stamp;
        self.at.insert(pid, time);
        self.order.push_back((pid, time));
        if self.order.len() > MOST_KILLED
            && let Some((pid, time)) = self.order.pop_front()
            // Not if its number has been killed again since.
            && self.at.get(&pid) == Some(&time)
        {
            self.at.remove(&pid);
        }
    }

    /// When the thread that did this had been killed, on `CLOCK_MONOTONIC`; `None` if it had not.
    pub fn before(&self, stamp: &Stamp) -> Option<Duration> {
        let at = *self.at.get(&stamp.pid)?;
        let since = stamp.time.checked_sub(at)?;
        (since <= LONGEST_DEATH).then_some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(pid: u32, seconds: u64) -> Stamp {
        Stamp {
            time: Duration::from_secs(seconds),
            comm: None,
            pid,
            process: None,
            cpu: 0,
            in_interrupt: false,
        }
    }

    fn kill(pid: u32, seconds: u64) -> KillEvent {
        KillEvent {
            stamp: stamp(pid, seconds),
        }
    }

    #[test]
    fn what_a_thread_did_before_or_long_after_was_not_its_death() {
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
    fn memory_is_bounded_and_the_newest_stay() {
        let mut killed = Killed::default();
        killed.see(&kill(0, 1));
        for n in 1..=10_000 {
            killed.see(&kill(n % 5000, 2));
        }
        assert!(killed.at.len() <= MOST_KILLED && killed.order.len() <= MOST_KILLED);
        assert!(
            killed.before(&stamp(0, 2)).is_some(),
            "killed again of late"
        );
        assert!(killed.before(&stamp(1, 2)).is_none());
    }
}
