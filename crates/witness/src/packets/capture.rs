//! The running capture of packets: a thread that takes them, and handles that ask it.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rstlab_wire::monotonic_now;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use tokio::sync::{mpsc, oneshot};

use super::conversation::Conversation;
use super::decode::decode;
use super::packet::{Packet, Snap};
use super::reset_sender::ResetSender;
use super::socket::{BATCH, MAX_QUEUED, PacketSocket, offset as clock_offset};
use super::store::Store;
use crate::evidence::Pair;
use crate::unavailable::Unavailable;

/// Most memory that packets take.
const MAX_BYTES: usize = 32 * 1024 * 1024;

/// While packets come, the thread sleeps for this time between two looks, because waking up for each packet would cost
/// more than the packets do. The kernel's queue has room for the packets that come meanwhile.
const GATHER: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 2_000_000,
};

/// Bounded queue of questions; a full queue makes the asker wait.
const MAX_QUESTIONS: usize = 1024;

/// The running capture of one or more ports. A clone is another handle to the same capture, which ends with the last
/// handle.
#[derive(Debug, Clone)]
pub struct Packets {
    inner: Arc<CaptureHandle>,
}

#[derive(Debug)]
struct CaptureHandle {
    questions: mpsc::Sender<ConversationQuestion>,
    shared: Arc<CaptureState>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// State that the handles and the thread share.
#[derive(Debug)]
struct CaptureState {
    /// Wakes the thread.
    wake: OwnedFd,
    stop: AtomicBool,
    /// The thread looks again within [`GATHER`] by itself, so a question need not wake the thread: waking costs more
    /// than the answer.
    gathers: AtomicBool,
    lost: AtomicU64,
    lost_resets: AtomicU64,
}

#[derive(Debug)]
struct ConversationQuestion {
    pair: Pair,
    answer: oneshot::Sender<Option<Conversation>>,
}

impl Packets {
    /// Captures TCP segments from or to `port`, on all interfaces of this network namespace. A packet that passes
    /// several of them (a bridge and its members) is captured at each.
    ///
    /// # Errors
    /// The privilege (`CAP_NET_RAW`) is missing, or the kernel has no packet sockets.
    pub fn open(port: u16) -> Result<Self, Unavailable> {
        Self::start(&[port], Snap::Beginning, None)
    }

    /// As [`open`](Self::open), and captures up to 1,500 bytes of each packet, for records that keep its payload.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn with_payload(port: u16) -> Result<Self, Unavailable> {
        Self::start(&[port], Snap::Payload, None)
    }

    /// As [`open`](Self::open), for several ports, or for all ports if the list is empty.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn of_ports(ports: &[u16]) -> Result<Self, Unavailable> {
        Self::start(ports, Snap::Beginning, None)
    }

    /// Captures `ports`, or all ports if the list is empty, and gives the resets to `sender`.
    pub(super) fn start(
        ports: &[u16],
        snap: Snap,
        sender: Option<ResetSender>,
    ) -> Result<Self, Unavailable> {
        let (questions, asked) = mpsc::channel(MAX_QUESTIONS);
        let capture = Capture::open(ports, snap, sender, asked)?;
        let shared = Arc::clone(&capture.shared);
        let thread = thread::Builder::new()
            .name(format!(
                "packets {}",
                ports.first().copied().unwrap_or_default()
            ))
            .spawn(move || capture.run())
            .map_err(|error| Unavailable::capture("start a thread for the capture", error))?;
        let inner = Arc::new(CaptureHandle {
            questions,
            shared,
            thread: Mutex::new(Some(thread)),
        });
        Ok(Self { inner })
    }

    /// The packets of the latest connection between these addresses that were captured up to this call; `None` if there
    /// are none, or none are left: 32 MiB are kept, and the connections that were quiet for longest go first.
    pub async fn conversation(&self, pair: Pair) -> Option<Conversation> {
        let (answer, answered) = oneshot::channel();
        let question = ConversationQuestion { pair, answer };
        self.inner.questions.send(question).await.ok()?;
        // Either we see that the thread looks again soon, or the thread sees the question before it waits for packets
        // (`Capture::turn`).
        fence(Ordering::SeqCst);
        if !self.inner.shared.gathers.load(Ordering::SeqCst) {
            self.inner.shared.wake();
        }
        answered.await.ok()?
    }

    /// How many packets came faster than they could be taken, and are in no conversation.
    pub fn lost(&self) -> u64 {
        self.inner.shared.lost.load(Ordering::Relaxed)
    }

    /// How many resets were lost, or found no room in the channel.
    pub(super) fn lost_resets(&self) -> u64 {
        self.inner.shared.lost_resets.load(Ordering::Relaxed)
    }

    /// Takes everything that was captured until now, and ends the capture.
    pub(super) fn end(&self) {
        self.inner.end();
    }
}

impl CaptureHandle {
    fn end(&self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.wake();
        // Nothing panics while it holds the lock.
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = thread.take() {
            // The thread does not panic; if it did, the panic has been printed.
            let _ = thread.join();
        }
    }
}

impl Drop for CaptureHandle {
    fn drop(&mut self) {
        self.end();
    }
}

impl CaptureState {
    fn wake(&self) {
        // The write fails only if the count is full, and then the thread is being woken already.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}

/// The capture, as its thread owns it.
struct Capture {
    /// If empty, all ports.
    ports: Vec<u16>,
    socket: PacketSocket,
    store: Store,
    /// Resets have a socket of their own, whose queue other packets cannot fill.
    resets: Option<(PacketSocket, ResetSender)>,
    taken: Vec<Packet>,
    /// From `CLOCK_MONOTONIC` to `CLOCK_REALTIME`. Both sockets use the same value, because their packets are sorted by
    /// the time that results from it.
    offset: Option<Duration>,
    asked: mpsc::Receiver<ConversationQuestion>,
    shared: Arc<CaptureState>,
}

impl Capture {
    fn open(
        ports: &[u16],
        snap: Snap,
        sender: Option<ResetSender>,
        asked: mpsc::Receiver<ConversationQuestion>,
    ) -> Result<Self, Unavailable> {
        let socket = PacketSocket::open(ports, false, snap)?;
        let resets = match sender {
            Some(sender) => Some((PacketSocket::open(ports, true, snap)?, sender)),
            None => None,
        };
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| Unavailable::capture("make an eventfd", error.into()))?;
        Ok(Self {
            ports: ports.to_vec(),
            socket,
            store: Store::new(MAX_BYTES),
            resets,
            taken: Vec::new(),
            offset: None,
            asked,
            shared: Arc::new(CaptureState {
                wake,
                stop: AtomicBool::new(false),
                gathers: AtomicBool::new(false),
                lost: AtomicU64::new(0),
                lost_resets: AtomicU64::new(0),
            }),
        })
    }

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
        // Packets from before the order to stop are taken, too; an error now would not change the end.
        if self.resets.is_some() && self.drain().is_ok() {
            if let Some((_, sender)) = &mut self.resets {
                sender.finish(&mut self.store);
            }
            self.count_lost();
        }
    }

    /// Waits for packets or a question. Returns whether packets came, or resets wait to be handed on.
    fn turn(&mut self, busy: bool) -> io::Result<bool> {
        self.shared.gathers.store(busy, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if busy || self.asked.is_empty() {
            self.wait(busy)?;
        }
        // Questions are taken before packets, so that a packet that was captured before a question was asked is in the
        // queue or in the store.
        let mut questions = Vec::new();
        while let Ok(question) = self.asked.try_recv() {
            questions.push(question);
        }
        let came = self.drain()?;
        self.count_lost();
        for ConversationQuestion { pair, answer } in questions {
            // It fails if the asker has gone away.
            let _ = answer.send(self.store.conversation(&pair));
        }
        Ok(came)
    }

    fn count_lost(&self) {
        let shared = &self.shared;
        shared.lost.store(self.socket.lost(), Ordering::Relaxed);
        if let Some((socket, sender)) = &self.resets {
            let lost = socket.lost() + sender.dropped();
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
        // If packets woke us, there is nothing to read here.
        let _ = rustix::io::read(&self.shared.wake, &mut [0; 8]);
        Ok(())
    }

    /// Takes the packets in the queues, no more than the queues hold at once. Returns whether to look again soon.
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
        let Some((reset_socket, sender)) = resets else {
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
        // Other packets are taken before the resets, because at the beginning of a capture the kernel may not stamp
        // times yet, and then packets stay in the order in which they are taken. Other packets are taken again after
        // the resets, because those from before a reset are in the queue by then.
        let mut came = take(socket, offset, |packet| keep(false, taken, packet))?;
        came |= take(reset_socket, offset, |packet| keep(true, taken, packet))?;
        came |= take(socket, offset, |packet| keep(false, taken, packet))?;
        // This comes before any RST is handed on, because a lost packet may belong to the connection of the RST.
        if socket.lost() + reset_socket.lost() != lost_before {
            store.lost(monotonic_now());
        }
        taken.sort_by_key(|packet| packet.at);
        for packet in taken.drain(..) {
            sender.see(&packet, store);
            store.push(packet);
        }
        sender.tell(monotonic_now(), store);
        Ok(came || sender.waits())
    }
}

/// Takes the packets of a socket. Returns whether there were any.
fn take(
    socket: &mut PacketSocket,
    offset: Duration,
    mut push: impl FnMut(Packet),
) -> io::Result<bool> {
    let mut taken = 0;
    while taken < MAX_QUEUED {
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

/// These tests need the privilege to capture.
#[cfg(test)]
#[cfg(feature = "kernel")]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use socket2::{Domain, Socket, Type};

    use super::*;

    /// A capture without a thread: nobody takes the packets until the test does.
    fn capture(port: u16, tells: bool) -> Capture {
        let sender = tells.then(|| ResetSender::new(mpsc::channel(1).0));
        Capture::open(&[port], Snap::Beginning, sender, mpsc::channel(1).1).unwrap()
    }

    #[test]
    fn a_conversation_says_that_packets_were_lost() {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let bound = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        bound.bind(&any.into()).unwrap();
        let server = bound.local_addr().unwrap();
        // Nobody listens there, so each attempt makes a SYN and a RST.
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
            assert!(lacks(MAX_QUEUED / 2 + 700), "{tells}");
            assert!(!lacks(1));
        }
    }
}
