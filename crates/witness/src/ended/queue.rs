//! A bounded queue in front of a slow taker: ends that find the queue full are dropped, counted and logged.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc::{self, Receiver, Sender};

use super::{Ended, Taker, Wants};

/// The taker that fills a queue; [`ended_queue`] makes it.
#[derive(Debug)]
pub struct EndedQueue {
    sender: Sender<Arc<Ended>>,
    wants: Wants,
    dropped: Dropped,
}

/// A taker that fills a queue of at most `capacity` ends, and the receiver for the slow reader. `name` names the reader
/// in the log if the queue is full.
pub fn ended_queue(
    name: &'static str,
    capacity: usize,
    wants: Wants,
) -> (EndedQueue, Receiver<Arc<Ended>>) {
    let (sender, receiver) = mpsc::channel(capacity);
    let queue = EndedQueue {
        sender,
        wants,
        dropped: Dropped::new(name),
    };
    (queue, receiver)
}

impl Taker for EndedQueue {
    fn wants(&self) -> Wants {
        self.wants
    }

    fn has_room(&self) -> bool {
        // A queue whose reader is gone takes nothing any more.
        self.sender.capacity() > 0 && !self.sender.is_closed()
    }

    fn take(&self, ended: &Arc<Ended>) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.sender.try_send(Arc::clone(ended)) {
            self.dropped.one_more();
        }
    }
}

/// Counts what a full queue dropped, and logs the count: at 1, 2, 4, 8 and so on, and the total at the end.
#[derive(Debug)]
pub(crate) struct Dropped {
    name: &'static str,
    count: AtomicU64,
}

impl Dropped {
    pub(crate) fn new(name: &'static str) -> Self {
        Self {
            name,
            count: AtomicU64::new(0),
        }
    }

    pub(crate) fn one_more(&self) {
        let dropped = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        if dropped.is_power_of_two() {
            self.tell(dropped);
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    fn tell(&self, dropped: u64) {
        let name = self.name;
        tracing::warn!(
            dropped,
            "{name}: exchanges end faster than they can be taken; some are dropped"
        );
    }
}

impl Drop for Dropped {
    fn drop(&mut self) {
        let dropped = self.count();
        if dropped > 0 && !dropped.is_power_of_two() {
            self.tell(dropped);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ended::ended_with;
    use crate::records::lazy;

    #[test]
    fn a_full_queue_drops_and_counts_and_one_without_a_reader_wants_no_record() {
        let (queue, mut ends) = ended_queue("test", 1, Wants::Records);
        assert!(queue.has_room());
        let ended = Arc::new(ended_with(lazy()));
        queue.take(&ended);
        assert!(!queue.has_room());
        queue.take(&ended);
        assert_eq!(queue.dropped.count(), 1);
        ends.try_recv().unwrap();
        assert!(queue.has_room());
        drop(ends);
        assert!(!queue.has_room());
    }
}
