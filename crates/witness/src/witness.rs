use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rstlab_wire::{Tape, monotonic_now, nanos};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

use crate::boot::BOOT_ID;
use crate::pair::canonical;
use crate::records::remarks;
use crate::{
    Conversation, CounterWitness, Ending, Event, Evidence, KernelStory, KernelWitness, Lane, Level,
    Packets, Pair, RECORD_VERSION, Record, Recorder, ServerSide, Subject, Unavailable, Verdict,
    Window,
};

/// Longest wait for the kernel's word on a RST that was seen: it speaks within milliseconds, but for an echo that
/// may have overtaken its cause.
pub const KERNEL_SPEAKS: Duration = Duration::from_millis(250);

/// The first pause before packets are looked at again, each following one being twice as long.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// The upstream tells of a close within milliseconds, if it tells: the pause before looking for it, each following one
/// being twice as long, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(15);
const LAST_PAUSE: Duration = Duration::from_millis(60);

/// How many may look at the same time; the others do without. Enough for 10,000 resets a second.
const MOST_LOOKING: usize = 256;

/// Everything that can tell why a connection of one server's port ended. Cloning is cheap and shares it.
#[derive(Debug, Clone, Default)]
pub struct Witness(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    why_not_more: Option<String>,
    counters: Option<CounterWitness>,
    packets: Option<Packets>,
    kernel: Option<KernelWitness>,
    recorder: Option<Recorder>,
    looking: Semaphore,
}

impl Default for Inner {
    fn default() -> Self {
        Self {
            why_not_more: None,
            counters: None,
            packets: None,
            kernel: None,
            recorder: None,
            looking: Semaphore::new(MOST_LOOKING),
        }
    }
}

/// A connection that is being watched, from its beginning.
#[derive(Debug)]
pub struct Watch {
    since: Duration,
    window: Mutex<Option<Window>>,
    /// Its system calls, if somebody wants to keep them.
    pub tape: Tape,
}

/// What the program itself knows of a connection.
#[derive(Debug)]
pub struct Account {
    /// Where its system calls belong on a timeline.
    pub lane: Lane,
    /// What the client asked for: `POST /`.
    pub request: Option<String>,
    /// What came of it for the one who asked.
    pub outcome: Option<String>,
    /// What the sockets showed.
    pub evidence: Evidence,
    /// Bytes of the request's head on this connection: the calls that carried it are marked.
    pub head_bytes: u64,
    /// What else happened.
    pub events: Vec<Event>,
}

impl Watch {
    /// The connection is over: the time in which it lived, if the counters are asked. Once.
    ///
    /// Asking what they did in it reads files; the window's drop lets the next connection be alone.
    pub fn end(&self) -> Option<Window> {
        // No code panics while it holds the lock.
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        window.take()
    }

    /// When it began, on `CLOCK_MONOTONIC`.
    pub fn since(&self) -> Duration {
        self.since
    }
}

impl Witness {
    /// Takes the strongest kind of evidence that works, or the one that is wanted, about the connections to `port`,
    /// and gives what it finds to `recorder`; call it inside a tokio runtime.
    ///
    /// The kernel's word needs no packets, but a record shows them.
    ///
    /// # Errors
    /// What is wanted does not work. Without a wish there is always something that does.
    pub fn open(
        wanted: Option<Level>,
        port: u16,
        recorder: Option<Recorder>,
    ) -> Result<Self, Unavailable> {
        let mut why_not = Vec::new();
        let strongest_first = Level::ALL.into_iter().rev();
        for level in strongest_first.filter(|level| wanted.is_none_or(|wanted| wanted == *level)) {
            match Inner::open(level, port) {
                Ok(mut inner) => {
                    if recorder.is_some() && level == Level::Kernel {
                        match Packets::open(port) {
                            Ok(packets) => inner.packets = Some(packets),
                            Err(error) => why_not.push(format!("no packets in records: {error}")),
                        }
                    }
                    inner.recorder = recorder;
                    inner.why_not_more = (!why_not.is_empty()).then(|| why_not.join("; "));
                    return Ok(Self(Arc::new(inner)));
                }
                Err(error) if wanted.is_some() => return Err(error),
                Err(error) => why_not.push(format!("{level}: {error}")),
            }
        }
        Ok(Self::default())
    }

    /// The strongest kind of evidence that is used.
    pub fn level(&self) -> Level {
        if self.0.kernel.is_some() {
            Level::Kernel
        } else if self.0.packets.is_some() {
            Level::Packets
        } else if self.0.counters.is_some() {
            Level::Counters
        } else {
            Level::Sockets
        }
    }

    /// Why the stronger kinds are not used, where that was not wished.
    pub fn why_not_more(&self) -> Option<&str> {
        self.0.why_not_more.as_deref()
    }

    /// Whether it can tell of a RST that the program does not see itself.
    pub fn sees_resets(&self) -> bool {
        self.0.kernel.is_some() || self.0.packets.is_some()
    }

    /// Whether a connection that ended well is to be examined and kept, too.
    pub fn wants_everything(&self) -> bool {
        let recorder = self.0.recorder.as_ref();
        recorder.is_some_and(Recorder::wants_everything)
    }

    /// Hands a record to the recorder, if there is one that wants it.
    pub fn keep(&self, record: Record) {
        if let Some(recorder) = &self.0.recorder
            && !record.events.is_empty()
        {
            recorder.keep(record);
        }
    }

    /// Tells a proxy that shares the recorder's directory how the server's socket ended, at once.
    pub fn tell(&self, server: SocketAddr, client: SocketAddr, side: ServerSide) {
        if let Some(recorder) = &self.0.recorder {
            recorder.tell(canonical(server), canonical(client), side);
        }
    }

    /// Ends what must not be left behind: the kernel's trace. For all clones.
    pub async fn close(&self) {
        if let Some(kernel) = &self.0.kernel {
            kernel.close().await;
        }
    }

    /// A connection begins, or the next request on it.
    pub fn watch(&self) -> Watch {
        Watch {
            since: monotonic_now(),
            window: Mutex::new(self.0.counters.as_ref().map(CounterWitness::begin)),
            tape: match self.0.recorder {
                Some(_) => Tape::recording(),
                None => Tape::default(),
            },
        }
    }

    /// Gathers what is known of a connection, and judges it. Waits up to `patience` for the word on a RST.
    ///
    /// Without a recorder that wants it, the record has a verdict and no events.
    pub async fn examine(
        &self,
        watch: &Watch,
        server: SocketAddr,
        client: SocketAddr,
        account: Account,
        patience: Duration,
    ) -> Record {
        // A dual-stack socket's addresses are IPv4-mapped; the kernel's trace and the packets name IPv4.
        let (server, client) = (canonical(server), canonical(client));
        let Account {
            lane,
            request,
            outcome,
            mut evidence,
            head_bytes,
            mut events,
        } = account;
        let story = match &self.0.kernel {
            Some(kernel) => {
                let subject = Subject {
                    server,
                    client,
                    since: watch.since,
                };
                kernel.story(subject, patience).await
            }
            None => KernelStory::default(),
        };
        evidence.kernel = self.0.kernel.as_ref().map(|_| story.word);
        let mut packets = match &self.0.packets {
            Some(packets) => {
                // The kernel's word, where it is asked, has been waited for.
                let patience = match self.0.kernel {
                    Some(_) => Duration::ZERO,
                    None => patience,
                };
                with_its_reset(packets, Pair::new(server, client), patience).await
            }
            None => None,
        };
        evidence.packets = packets.as_ref().map(Conversation::ending);
        if evidence.server.is_none() {
            evidence.server = self.told_by_the_server(server, client, watch.since).await;
        }
        let mut left_out = 0;
        let recorder = self.0.recorder.as_ref();
        if recorder.is_some_and(|it| it.wants(server, client)) {
            let calls;
            (calls, left_out) = watch.tape.take();
            events.extend(calls.iter().map(|moment| Event::call(lane, moment)));
            events.extend(remarks(lane, &calls, head_bytes));
            events.extend(story.events);
            let packets = packets.iter().flat_map(|it| it.events(server));
            // On a kept connection, those of earlier exchanges are not this one's.
            events.extend(packets.filter(|event| event.at_ns >= nanos(watch.since)));
            events.sort_by_key(|event| event.at_ns);
        } else {
            events.clear();
            packets = None;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Record {
            version: RECORD_VERSION,
            boot_id: BOOT_ID.clone(),
            unix_time: now.map_or(0, |now| now.as_secs()),
            server,
            client,
            request,
            outcome,
            verdict: Verdict::of(&evidence, server),
            evidence,
            events,
            left_out,
            packets,
        }
    }
}

/// The packets of a connection; waits up to `patience` for a RST among them.
async fn with_its_reset(packets: &Packets, pair: Pair, patience: Duration) -> Option<Conversation> {
    let deadline = Instant::now() + patience;
    let mut pause = LOOK_AGAIN;
    loop {
        let conversation = packets.conversation(pair).await;
        let is_reset = |it: &Conversation| matches!(it.ending(), Ending::Reset { .. });
        if Instant::now() + pause > deadline || conversation.as_ref().is_some_and(is_reset) {
            return conversation;
        }
        sleep(pause).await;
        pause *= 2;
    }
}

impl Witness {
    /// What the server tells in the directory that both share, if they do.
    async fn told_by_the_server(
        &self,
        server: SocketAddr,
        client: SocketAddr,
        since: Duration,
    ) -> Option<ServerSide> {
        let recorder = self.0.recorder.as_ref().filter(|it| it.is_told())?;
        let _slot = self.0.looking.try_acquire().ok()?;
        let mut pause = FIRST_PAUSE;
        loop {
            sleep(pause).await;
            let told = recorder.told(server, client, since);
            if told.is_some() || pause >= LAST_PAUSE {
                return told;
            }
            pause *= 2;
        }
    }
}

impl Inner {
    fn open(level: Level, port: u16) -> Result<Self, Unavailable> {
        let mut inner = Self::default();
        match level {
            Level::Sockets => {}
            Level::Counters => {
                let counters = CounterWitness::open().map_err(Unavailable::NoCounters)?;
                inner.counters = Some(counters);
            }
            Level::Packets => inner.packets = Some(Packets::open(port)?),
            Level::Kernel => {
                let kernel = KernelWitness::open(port)?;
                if !kernel.format().tells_closes_apart() {
                    return Err(Unavailable::NoReasons);
                }
                inner.kernel = Some(kernel);
            }
        }
        Ok(inner)
    }
}
