//! The thread that writes records and ends to the disk, so that no request waits for it.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tracing::warn;

use crate::ended::Dropped;
use crate::records::{EndsFile, Record, RecordDirectory, ServerEnd};

/// Time between two records while more wait. With 560 resets a second this thread took 0.9 % of a processor in the proxy,
/// and 1.9 % in the upstream, which also writes the ends.
const RECORDS_APART: Duration = Duration::from_millis(40);

/// Time between two appends of ends; each append writes all ends that wait.
const ENDS_APART: Duration = Duration::from_millis(8);

/// Limit of the memory of the records that wait: a burst of 200 with the longest conversations that are kept without
/// payload (256 packets and 300 events, 109 kB), or of more small ones.
const MAX_RECORD_BYTES: usize = 24 * 1024 * 1024;

/// Limit of the ends that wait, for a disk that does not answer.
const MAX_ENDS: usize = 10_000;

/// Limit of the drop's wait for the last writes.
const LAST_WRITES: Duration = Duration::from_secs(5);

/// Least time between two warnings of a failed write.
const WARNINGS_APART: Duration = Duration::from_secs(60);

/// The handle of the thread: puts records and ends into its queue.
#[derive(Debug)]
pub(crate) struct Writer {
    max_record_bytes: usize,
    queue: Arc<WriteQueue>,
    dropped_records: Dropped,
    dropped_ends: Dropped,
    ended: Mutex<Receiver<()>>,
}

/// The records and ends that wait to be written.
#[derive(Debug, Default)]
struct WriteQueue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    ends: Vec<ServerEnd>,
    /// The thread is going to look for ends after [`ENDS_APART`]: a new end need not wake it.
    looks_soon: bool,
    records: WaitingRecords,
    closed: bool,
}

/// Records, oldest first, each with its memory.
#[derive(Debug, Default)]
struct WaitingRecords {
    queue: VecDeque<(Arc<Record>, usize)>,
    bytes: usize,
}

impl WaitingRecords {
    fn push(&mut self, record: &Arc<Record>) {
        let bytes = record.memory();
        self.queue.push_back((Arc::clone(record), bytes));
        self.bytes += bytes;
    }

    fn pop(&mut self) -> Option<Arc<Record>> {
        let (record, bytes) = self.queue.pop_front()?;
        self.bytes -= bytes;
        Some(record)
    }
}

/// The next thing to write.
enum Next {
    Ends(Vec<ServerEnd>),
    Record(Arc<Record>),
    Nothing,
}

/// When the thread may write ends and records again.
struct Rests {
    ends: Instant,
    records: Instant,
}

impl Writer {
    pub(crate) fn start(mut directory: RecordDirectory, ends: EndsFile) -> io::Result<Self> {
        let queue = Arc::new(WriteQueue::default());
        let (end, ended) = mpsc::channel();
        let of_thread = Arc::clone(&queue);
        thread::Builder::new()
            .name("records".to_owned())
            .spawn(move || {
                of_thread.write_all(&mut directory, &ends);
                // The drop may have given up waiting for this.
                let _ = end.send(());
            })?;
        Ok(Self {
            max_record_bytes: MAX_RECORD_BYTES,
            queue,
            dropped_records: Dropped::new("records"),
            dropped_ends: Dropped::new("ends"),
            ended: Mutex::new(ended),
        })
    }

    /// Whether a record that is about to be made has room; if not, it counts as dropped.
    pub(crate) fn has_room(&self) -> bool {
        let has_room = locked(&self.queue.waiting).records.bytes < self.max_record_bytes;
        if !has_room {
            self.dropped_records.one_more();
        }
        has_room
    }

    /// Puts a record into the queue; a full queue drops its oldest records.
    pub(crate) fn push(&self, record: &Arc<Record>) {
        let mut waiting = locked(&self.queue.waiting);
        let records = &mut waiting.records;
        let was_empty = records.queue.is_empty();
        records.push(record);
        let mut dropped = 0;
        while records.bytes > self.max_record_bytes && records.pop().is_some() {
            dropped += 1;
        }
        drop(waiting);
        if was_empty {
            self.queue.changed.notify_one();
        }
        (0..dropped).for_each(|_| self.dropped_records.one_more());
    }

    /// Puts an end into the queue; a full queue drops it.
    pub(crate) fn tell(&self, end: ServerEnd) {
        let mut waiting = locked(&self.queue.waiting);
        if waiting.ends.len() >= MAX_ENDS {
            drop(waiting);
            return self.dropped_ends.one_more();
        }
        let wakes = waiting.ends.is_empty() && !waiting.looks_soon;
        waiting.ends.push(end);
        drop(waiting);
        if wakes {
            self.queue.changed.notify_one();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        locked(&self.queue.waiting).closed = true;
        self.queue.changed.notify_one();
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        if ended.recv_timeout(LAST_WRITES).is_err() {
            warn!("the last records were not written within {LAST_WRITES:?}");
        }
    }
}

impl WriteQueue {
    /// Writes records and ends until the queue is closed and empty.
    fn write_all(&self, directory: &mut RecordDirectory, ends_file: &EndsFile) {
        let now = Instant::now();
        let mut rests = Rests {
            ends: now,
            records: now,
        };
        let mut warned = None;
        loop {
            let written = match self.next(&rests) {
                Next::Ends(ends) => {
                    let written = ends_file.append(&ends);
                    rests.ends = Instant::now() + ENDS_APART;
                    written
                }
                Next::Record(record) => {
                    rests.records = Instant::now() + RECORDS_APART;
                    directory.put(&record)
                }
                Next::Nothing => return,
            };
            if let Err(error) = written
                && warned.is_none_or(|at: Instant| at.elapsed() >= WARNINGS_APART)
            {
                warned = Some(Instant::now());
                warn!(
                    "a record was not kept in {}: {error}; other records may be missing too",
                    directory.path().display()
                );
            }
        }
    }

    /// Waits for something to write, and for the end of its rest. A closed queue has no rests.
    fn next(&self, rests: &Rests) -> Next {
        let mut waiting = locked(&self.waiting);
        loop {
            let now = Instant::now();
            let rested = |from: Instant, waiting: &Waiting| waiting.closed || from <= now;
            if !waiting.ends.is_empty() && rested(rests.ends, &waiting) {
                return Next::Ends(std::mem::take(&mut waiting.ends));
            }
            if rested(rests.records, &waiting)
                && let Some(record) = waiting.records.pop()
            {
                return Next::Record(record);
            }
            if waiting.closed {
                return Next::Nothing;
            }
            waiting.looks_soon = rests.ends > now;
            let ends = waiting.looks_soon.then_some(rests.ends);
            let records = (!waiting.records.queue.is_empty()).then_some(rests.records);
            // No code panics while it holds the lock.
            waiting = match ends.into_iter().chain(records).min() {
                Some(at) => {
                    let changed = self.changed.wait_timeout(waiting, at - now);
                    changed.unwrap_or_else(PoisonError::into_inner).0
                }
                None => {
                    let changed = self.changed.wait(waiting);
                    changed.unwrap_or_else(PoisonError::into_inner)
                }
            };
        }
    }
}

/// No code panics while it holds the lock.
fn locked(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packets::longest_conversation;
    use crate::records::{lazy, lazy_upstream};

    fn from_port(port: u16) -> Arc<Record> {
        let mut record = lazy();
        record.client.set_port(port);
        Arc::new(record)
    }

    /// A writer without its thread: only the test takes from the queue.
    fn writer_of(max_record_bytes: usize) -> Writer {
        let (_, ended) = mpsc::channel();
        Writer {
            max_record_bytes,
            queue: Arc::default(),
            dropped_records: Dropped::new("records"),
            dropped_ends: Dropped::new("ends"),
            ended: Mutex::new(ended),
        }
    }

    #[test]
    fn only_the_newest_records_wait_and_the_dropped_ones_are_counted() {
        let writer = writer_of(10 * lazy().memory());
        for port in 0..1000 {
            assert!(port >= 10 || writer.has_room());
            writer.push(&from_port(port));
        }
        assert_eq!(writer.dropped_records.count(), 990);
        assert!(!writer.has_room());
        assert_eq!(writer.dropped_records.count(), 991, "no room is a drop too");
        let rests = Rests {
            ends: Instant::now(),
            records: Instant::now(),
        };
        for port in 990..1000 {
            let Next::Record(record) = writer.queue.next(&rests) else {
                panic!("no record");
            };
            assert_eq!(record.client.port(), port);
        }
        assert!(writer.has_room());
        let record = from_port(1);
        writer.push(&record);
        assert_eq!(locked(&writer.queue.waiting).records.bytes, record.memory());
    }

    /// The longest conversation has 256 packets, of which 164 bytes are kept each.
    #[test]
    fn a_burst_of_200_long_records_waits_and_none_is_dropped() {
        let writer = writer_of(MAX_RECORD_BYTES);
        let mut record = lazy();
        record.packets = Some(longest_conversation());
        let event = record.events[0].clone();
        record.events.resize(256 + 50, event);
        let record = Arc::new(record);
        for _ in 0..200 {
            assert!(writer.has_room());
            writer.push(&record);
        }
        assert_eq!(writer.dropped_records.count(), 0);
        (0..20_000).for_each(|_| writer.push(&record));
        let waiting = locked(&writer.queue.waiting);
        assert!(waiting.records.bytes <= MAX_RECORD_BYTES);
        let in_all = waiting.records.queue.len() as u64 + writer.dropped_records.count();
        assert_eq!(in_all, 20_200);
    }

    #[test]
    fn an_end_that_finds_the_queue_full_is_counted() {
        let writer = writer_of(1);
        let Record {
            server,
            client,
            evidence,
            ..
        } = lazy_upstream();
        for at_ns in 0..MAX_ENDS as u64 + 3 {
            writer.tell(ServerEnd {
                at_ns,
                server,
                client,
                side: evidence.server.unwrap(),
            });
        }
        assert_eq!(writer.dropped_ends.count(), 3);
    }
}
