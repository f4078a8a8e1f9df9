use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use tokio::sync::{mpsc, oneshot};

use super::conversation::Conversation;
use super::decode::decode;
use super::packet::Packet;
use super::resets::Teller;
use super::socket::{BATCH, MOST_QUEUED, PacketSocket, offset as clock_offset};
use super::store::Store;
use crate::{Pair, Unavailable, monotonic_now};

/// Most memory that packets take.
const MOST_BYTES: usize = 32 * 1024 * 1024;

/// While packets come they are left to gather for so long, for a thread that wakes for each costs more than the
/// packets do. The kernel's queue has room for what comes meanwhile.
const GATHER: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 2_000_000,
};

/// Questions that wait for their turn; who asks more waits before that.
const MOST_QUESTIONS: usize = 1024;

/// The running capture of a port (or more). A clone is another handle to the same; it ends with the last one.
#[derive(Debug, Clone)]
pub struct Packets {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    questions: mpsc::Sender<Question>,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What the handles and the thread have in common.
#[derive(Debug)]
struct Shared {
    /// Wakes the thread.
    wake: OwnedFd,
    stop: AtomicBool,
    /// It looks again within [`GATHER`], whoever asks: a wake for each question costs more than the answer.
    gathers: AtomicBool,
    lost: AtomicU64,
    lost_resets: AtomicU64,
}

#[derive(Debug)]
struct Question {
    pair: Pair,
    answer: oneshot::Sender<Option<Conversation>>,
}

impl Packets {
    /// Captures TCP segments from or to `port`, on all interfaces of this network namespace. A packet that passes
    /// several of them (a bridge and its members) is captured at each.
    ///
    /// # Errors
    /// There is no privilege to (`CAP_NET_RAW`), or no packet sockets.
    pub fn open(port: u16) -> Result<Self, Unavailable> {
        Self::start(&[port], None)
    }

    /// Captures `ports`, or all if there are none, and gives the resets to `teller`.
    pub(super) fn start(ports: &[u16], teller: Option<Teller>) -> Result<Self, Unavailable> {
        let socket = PacketSocket::open(ports, false)?;
        let resets = match teller {
            Some(teller) => Some((PacketSocket::open(ports, true)?, teller)),
            None => None,
        };
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| Unavailable::capture("make an eventfd", error.into()))?;
        let shared = Arc::new(Shared {
            wake,
            stop: AtomicBool::new(false),
            gathers: AtomicBool::new(false),
            lost: AtomicU64::new(0),
            lost_resets: AtomicU64::new(0),
        });
        let (questions, asked) = mpsc::channel(MOST_QUESTIONS);
        let capture = Capture {
            ports: ports.to_vec(),
            socket,
            store: Store::new(MOST_BYTES),
            resets,
            taken: Vec::new(),
            offset: None,
            asked,
            shared: Arc::clone(&shared),
        };
        let thread = thread::Builder::new()
            .name(format!(
                "packets {}",
                ports.first().copied().unwrap_or_default()
            ))
            .spawn(move || capture.run())
            .map_err(|error| Unavailable::capture("start a thread for the capture", error))?;
        let inner = Arc::new(Inner {
            questions,
            shared,
            thread: Mutex::new(Some(thread)),
        });
        Ok(Self { inner })
    }

    /// Everything that was captured of the connection up to this call, the latest one between these addresses; `None`
    /// if there is nothing, or nothing any more: 32 MiB are kept, the connections that were quiet for longest go
    /// first.
    pub async fn conversation(&self, pair: Pair) -> Option<Conversation> {
        let (answer, answered) = oneshot::channel();
        let question = Question { pair, answer };
        self.inner.questions.send(question).await.ok()?;
        // Either we see that it gathers, or it sees the question before it waits for more (`Capture::turn`).
        fence(Ordering::SeqCst);
        if !self.inner.shared.gathers.load(Ordering::SeqCst) {
            self.inner.shared.wake();
        }
        answered.await.ok()?
    }

    /// Packets that came faster than they could be taken, up to the last one that was: they are in no conversation.
    pub fn lost(&self) -> u64 {
        self.inner.shared.lost.load(Ordering::Relaxed)
    }

    /// Resets that were lost, or for which the teller had no room.
    pub(super) fn lost_resets(&self) -> u64 {
        self.inner.shared.lost_resets.load(Ordering::Relaxed)
    }

    /// Ends the capture, when everything has been taken that was captured until now.
    pub(super) fn end(&self) {
        self.inner.end();
    }
}

impl Inner {
    fn end(&self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.wake();
        // Nothing panics while it holds the lock.
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = thread.take() {
            // It does not panic; if it did, that has been told.
            let _ = thread.join();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn wake(&self) {
        // It fails only if the count is full: then the thread is being woken already.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}

/// The thread's side.
struct Capture {
    /// None is all.
    ports: Vec<u16>,
    socket: PacketSocket,
    store: Store,
    /// Resets come by a queue of their own, which other packets cannot fill.
    resets: Option<(PacketSocket, Teller)>,
    taken: Vec<Packet>,
    /// From `CLOCK_MONOTONIC` to `CLOCK_REALTIME`: one for both queues, whose packets are put in order by it.
    offset: Option<Duration>,
    asked: mpsc::Receiver<Question>,
    shared: Arc<Shared>,
}

impl Capture {
    fn run(mut self) {
        let mut busy = false;
        while !self.shared.stop.load(Ordering::Acquire) {
            match self.turn(busy) {
                Ok(came) => busy = came,
                Err(error) => {
                    tracing::warn!("the capture of packets ends: {error}");
                    return;
                }
            }
        }
        // What was captured before the end was asked for belongs to it; an error would not change the end.
        if self.resets.is_some() && self.drain().is_ok() {
            if let Some((_, teller)) = &mut self.resets {
                teller.finish(&mut self.store);
            }
            self.count_lost();
        }
    }

    /// Waits for packets or a question. Whether packets came, or resets wait to be told.
    fn turn(&mut self, busy: bool) -> io::Result<bool> {
        self.shared.gathers.store(busy, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if busy || self.asked.is_empty() {
            self.wait(busy)?;
        }
        // Taken first: what was captured before a question was asked is then in the queue or in the store.
        let mut questions = Vec::new();
        while let Ok(question) = self.asked.try_recv() {
            questions.push(question);
        }
        let came = self.drain()?;
        self.count_lost();
        for Question { pair, answer } in questions {
            // Who asked may have gone away.
            let _ = answer.send(self.store.conversation(&pair));
        }
        Ok(came)
    }

    fn count_lost(&self) {
        let shared = &self.shared;
        shared.lost.store(self.socket.lost(), Ordering::Relaxed);
        if let Some((socket, teller)) = &self.resets {
            let lost = socket.lost() + teller.untold();
            shared.lost_resets.store(lost, Ordering::Relaxed);
        }
    }

    fn wait(&self, busy: bool) -> io::Result<()> {
        let wake = PollFd::new(&self.shared.wake, PollFlags::IN);
        let socket = PollFd::new(&self.socket, PollFlags::IN);
        let polled = if busy {
            poll(&mut [wake], Some(&GATHER))
        } else {
            poll(&mut [wake, socket], None)
        };
        match polled {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        // If it was not this that woke us, there is nothing to read.
        let _ = rustix::io::read(&self.shared.wake, &mut [0; 8]);
        Ok(())
    }

    /// Takes what is in the queues; not for ever, though more may come meanwhile. Whether to look again soon.
    fn drain(&mut self) -> io::Result<bool> {
        let Self {
            ports,
            socket,
            store,
            resets,
            taken,
            offset,
            ..
        } = self;
        let offset = *offset.insert(clock_offset(*offset));
        let is_ours = |packet: &Packet| {
            let ends = [packet.from.port(), packet.to.port()];
            ports.is_empty() || ends.iter().any(|port| ports.contains(port))
        };
        let lost_before = socket.lost();
        let Some((reset_socket, teller)) = resets else {
            let came = take(socket, offset, |packet| {
                if is_ours(&packet) {
                    store.push(packet);
                }
            })?;
            if socket.lost() != lost_before {
                store.lost(monotonic_now());
            }
            return Ok(came);
        };
        let lost_before = lost_before + reset_socket.lost();
        let keep = |resets: bool, taken: &mut Vec<Packet>, packet: Packet| {
            if is_ours(&packet) && packet.flags.rst() == resets {
                taken.push(packet);
            }
        };
        // The others before the resets, for the kernel may not stamp times as yet when the capture begins: then the
        // order counts in which they are taken. And again: what came before a reset is there by then.
        let mut came = take(socket, offset, |packet| keep(false, taken, packet))?;
        came |= take(reset_socket, offset, |packet| keep(true, taken, packet))?;
        came |= take(socket, offset, |packet| keep(false, taken, packet))?;
        // Before any of them is told, for it may lack one of those.
        if socket.lost() + reset_socket.lost() != lost_before {
            store.lost(monotonic_now());
        }
        taken.sort_by_key(|packet| packet.at);
        for packet in taken.drain(..) {
            teller.see(&packet, store);
            store.push(packet);
        }
        teller.tell(monotonic_now(), store);
        Ok(came || teller.waits())
    }
}

/// Takes the packets of a socket; whether there were any.
fn take(
    socket: &mut PacketSocket,
    offset: Duration,
    mut push: impl FnMut(Packet),
) -> io::Result<bool> {
    let mut taken = 0;
    while taken < MOST_QUEUED {
        let count = socket.receive(offset, |bytes, length, at, wall| {
            if let Some(packet) = decode(bytes, length, at, wall) {
                push(packet);
            }
        })?;
        taken += count;
        if count < BATCH {
            break;
        }
    }
    Ok(taken > 0)
}

/// They need the privilege to capture.
#[cfg(test)]
#[cfg(feature = "kernel")]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use socket2::{Domain, Socket, Type};

    use super::*;

    /// A capture whose thread has not begun: nobody takes the packets until the test does.
    fn capture(port: u16, tells: bool) -> Capture {
        let ports = vec![port];
        let teller = || Teller::new(mpsc::channel(1).0);
        Capture {
            socket: PacketSocket::open(&ports, false).unwrap(),
            resets: tells.then(|| (PacketSocket::open(&ports, true).unwrap(), teller())),
            ports,
            store: Store::new(MOST_BYTES),
            taken: Vec::new(),
            offset: None,
            asked: mpsc::channel(1).1,
            shared: Arc::new(Shared {
                wake: eventfd(0, EventfdFlags::CLOEXEC).unwrap(),
                stop: AtomicBool::new(false),
                gathers: AtomicBool::new(false),
                lost: AtomicU64::new(0),
                lost_resets: AtomicU64::new(0),
            }),
        }
    }

    #[test]
    fn whoever_asks_is_told_that_packets_were_lost() {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let bound = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        bound.bind(&any.into()).unwrap();
        let server = bound.local_addr().unwrap();
        // Nobody listens there: a SYN and a RST.
        let refused = || {
            let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            client.bind(&any.into()).unwrap();
            client.connect(&server).unwrap_err();
            let ends = [&client, &bound].map(|it| it.local_addr().unwrap().as_socket().unwrap());
            Pair::new(ends[0], ends[1])
        };
        for tells in [false, true] {
            let mut capture = capture(server.as_socket().unwrap().port(), tells);
            let mut lacks = |connects: usize| {
                let pair = refused();
                for _ in 1..connects {
                    refused();
                }
                capture.drain().unwrap();
                let conversation = capture.store.conversation(&pair).unwrap();
                conversation.ending().is_of_a_part()
            };
            assert!(!lacks(1));
            assert!(lacks(MOST_QUEUED / 2 + 700), "{tells}");
            assert!(!lacks(1));
        }
    }
}
