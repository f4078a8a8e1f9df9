//! The thread that writes what proxy and upstream keep: nobody who has something to keep waits for the disk.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use tracing::warn;

use super::ends::{End, EndsFile};
use super::shelf::Shelf;
use crate::Record;

/// After a record the thread rests for so many times as long as a processor worked on it: records take 0.5 % of a
/// processor at most.
const REST: u32 = 200;

/// Time between two appends of ends, which takes all that wait.
const ENDS_APART: Duration = Duration::from_millis(8);

/// Most ends that wait, for a disk that stands still.
const MOST_ENDS: usize = 10_000;

/// Each further eighth of the desk that is full halves the share of connections that are recorded.
const HALVINGS: usize = 8;

/// How long the last drop waits for the disk.
const LAST_WRITES: Duration = Duration::from_secs(5);

/// Time between two warnings.
const WARNINGS_APART: Duration = Duration::from_secs(60);

/// The thread, as those see it who have something to keep.
#[derive(Debug)]
pub(crate) struct Writer {
    most: usize,
    desk: Arc<Desk>,
    ended: Mutex<Receiver<()>>,
}

/// What lies between the two.
#[derive(Debug, Default)]
struct Desk {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    ends: Vec<End>,
    /// The thread looks for ends by itself in a moment: nobody needs to wake it for one.
    looks_soon: bool,
    records: VecDeque<Record>,
    closed: bool,
}

/// What is to be written next.
enum Next {
    Ends(Vec<End>),
    Record(Box<Record>),
    Nothing,
}

/// When the thread may write again, by what.
struct Rests {
    ends: Instant,
    records: Instant,
}

impl Writer {
    pub(crate) fn start(mut shelf: Shelf, ends: EndsFile) -> io::Result<Self> {
        let most = shelf.most();
        let desk = Arc::new(Desk::default());
        let (end, ended) = mpsc::channel();
        let theirs = Arc::clone(&desk);
        thread::Builder::new()
            .name("records".to_owned())
            .spawn(move || {
                theirs.clear(&mut shelf, &ends);
                // The one who waits for it may have given up.
                let _ = end.send(());
            })?;
        Ok(Self {
            most,
            desk,
            ended: Mutex::new(ended),
        })
    }

    /// Whether a record of this connection is worth making: of too many, most would fall from the desk before they are
    /// written.
    ///
    /// Those that a fuller desk wants are among those that an emptier one wants: proxy and upstream, which are not
    /// equally fast, record the same.
    pub(crate) fn wants(&self, server: SocketAddr, client: SocketAddr) -> bool {
        let waiting = locked(&self.desk.waiting).records.len();
        let halvings = (waiting * HALVINGS / self.most).min(HALVINGS);
        lot(server.port(), client.port()) >> (HALVINGS - halvings) == 0
    }

    /// Lays a record on the desk; from a full one the oldest falls.
    pub(crate) fn push(&self, record: Record) {
        let mut waiting = locked(&self.desk.waiting);
        let was_empty = waiting.records.is_empty();
        waiting.records.push_back(record);
        let fallen = (waiting.records.len() > self.most).then(|| waiting.records.pop_front());
        drop(waiting);
        if was_empty {
            self.desk.changed.notify_one();
        }
        // Many events: freed when nobody waits for the desk.
        drop(fallen);
    }

    /// Lays an end on the desk, unless it is full.
    pub(crate) fn tell(&self, end: End) {
        let mut waiting = locked(&self.desk.waiting);
        let was_empty = waiting.ends.is_empty();
        if waiting.ends.len() < MOST_ENDS {
            waiting.ends.push(end);
        }
        let wakes = was_empty && !waiting.looks_soon;
        drop(waiting);
        if wakes {
            self.desk.changed.notify_one();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        locked(&self.desk.waiting).closed = true;
        self.desk.changed.notify_one();
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        if ended.recv_timeout(LAST_WRITES).is_err() {
            warn!("the last records were not written within {LAST_WRITES:?}");
        }
    }
}

impl Desk {
    /// Writes what lies there, until nobody lays anything there any more.
    fn clear(&self, shelf: &mut Shelf, ends_file: &EndsFile) {
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
                    let began = cpu_time();
                    let written = shelf.put(&record);
                    drop(record);
                    let worked = cpu_time().saturating_sub(began);
                    rests.records = Instant::now() + worked * REST;
                    written
                }
                Next::Nothing => return,
            };
            if let Err(error) = written
                && warned.is_none_or(|at: Instant| at.elapsed() >= WARNINGS_APART)
            {
                warned = Some(Instant::now());
                warn!(
                    "a record was not kept in {}: {error}; other records may be missing too",
                    shelf.dir().display()
                );
            }
        }
    }

    /// Waits for something that may be written; rests no longer when the end has come.
    fn next(&self, rests: &Rests) -> Next {
        let mut waiting = locked(&self.waiting);
        loop {
            let now = Instant::now();
            let rested = |from: Instant, waiting: &Waiting| waiting.closed || from <= now;
            if !waiting.ends.is_empty() && rested(rests.ends, &waiting) {
                return Next::Ends(std::mem::take(&mut waiting.ends));
            }
            if rested(rests.records, &waiting)
                && let Some(record) = waiting.records.pop_front()
            {
                return Next::Record(Box::new(record));
            }
            if waiting.closed {
                return Next::Nothing;
            }
            waiting.looks_soon = rests.ends > now;
            let ends = waiting.looks_soon.then_some(rests.ends);
            let records = (!waiting.records.is_empty()).then_some(rests.records);
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

/// A number of eight bits that all occur equally often, though the ports that the kernel gives to clients are all even
/// (`__inet_hash_connect`): Knuth's multiplicative hash.
fn lot(server: u16, client: u16) -> u32 {
    u32::from(server ^ client).wrapping_mul(0x9E37_79B1) >> 24
}

/// What a processor has worked for this thread: a slow disk, or a busy machine, is no work of ours.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// No code panics while it holds the lock.
fn locked(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::lazy;

    /// Nobody takes anything from this desk, until a test does.
    fn writer_of(most: usize) -> Writer {
        let (_, ended) = mpsc::channel();
        Writer {
            most,
            desk: Arc::default(),
            ended: Mutex::new(ended),
        }
    }

    fn from_port(port: u16) -> Record {
        let mut record = lazy();
        record.client.set_port(port);
        record
    }

    /// The clients' ports that are wanted, of those the kernel gives.
    fn wanted(writer: &Writer, server_port: u16) -> Vec<u16> {
        let Record {
            mut server, client, ..
        } = lazy();
        server.set_port(server_port);
        let mut ports: Vec<u16> = (32768..60999).step_by(2).collect();
        ports.retain(|port| writer.wants(server, SocketAddr::new(client.ip(), *port)));
        ports
    }

    #[test]
    fn only_the_newest_wait() {
        let writer = writer_of(10);
        (0..1000).for_each(|port| writer.push(from_port(port)));
        let rests = Rests {
            ends: Instant::now(),
            records: Instant::now(),
        };
        for port in 990..1000 {
            let Next::Record(record) = writer.desk.next(&rests) else {
                panic!("no record");
            };
            assert_eq!(record.client.port(), port);
        }
        assert!(locked(&writer.desk.waiting).records.is_empty());
    }

    #[test]
    fn the_fuller_the_desk_the_fewer_of_the_same_are_wanted() {
        for server_port in [8000, 8001] {
            let writer = writer_of(80);
            let mut before = wanted(&writer, server_port);
            assert_eq!(before.len(), 14_116, "all");
            for eighth in 1..=HALVINGS {
                (0..10).for_each(|port| writer.push(from_port(port)));
                let now = wanted(&writer, server_port);
                assert!(now.iter().all(|port| before.contains(port)));
                let (least, most) = (before.len() * 2 / 5, before.len() * 3 / 5);
                assert!(
                    (least..=most).contains(&now.len()),
                    "{eighth}/8: {}",
                    now.len()
                );
                before = now;
            }
        }
    }
}
