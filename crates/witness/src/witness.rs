//! Asks everything that can tell why a connection ended.

use std::mem;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rstlab_wire::nanos;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

use crate::boot::BOOT_ID;
use crate::counters::{CounterWitness, Past, Window};
use crate::ended::{Connection, Ended, Outcome, Teller};
use crate::evidence::{Ending, Event, Evidence, Lane, Level, Pair, ServerSide, canonical};
use crate::kernel::{KernelStory, KernelWitness, Subject};
use crate::packets::{Conversation, Packets};
use crate::records::{Ends, RECORD_VERSION, Record, remarks};
use crate::unavailable::Unavailable;
use crate::verdict::Verdict;

/// Limit of the wait for the kernel's event of a RST that was seen. The event comes within milliseconds, unless the
/// RST is an echo that has overtaken its cause.
pub const KERNEL_SPEAKS: Duration = Duration::from_millis(250);

/// The first pause before packets are looked at again; each further pause is twice as long.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// The first pause before looking for what the upstream tells of a close, which it does within milliseconds; each further
/// pause is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(15);

/// The last pause before looking there.
const LAST_PAUSE: Duration = Duration::from_millis(60);

/// Limit of the exchanges that look there at the same time; the others do without. Enough for 10,000 resets a second.
const MAX_LOOKING: usize = 256;

/// Everything that can tell why a connection to one server port ended. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Witness(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    why_not_more: Option<String>,
    counters: Option<CounterWitness>,
    packets: Option<Packets>,
    kernel: Option<KernelWitness>,
    /// Reads what an upstream tells of its connections, in a directory that both programs share.
    ends: Option<Mutex<Ends>>,
    looking: Semaphore,
}

impl Default for Inner {
    fn default() -> Self {
        Self {
            why_not_more: None,
            counters: None,
            packets: None,
            kernel: None,
            ends: None,
            looking: Semaphore::new(MAX_LOOKING),
        }
    }
}

/// The sources of evidence for a witness.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sources<'a> {
    /// The kind of evidence asked for; `None` is the strongest that works.
    pub wanted: Option<Level>,
    /// The server's port.
    pub port: u16,
    /// Capture packets too, if that works: the kernel's evidence needs none, but a record shows them.
    pub for_records: bool,
    /// Capture the payload of packets too.
    pub with_payload: bool,
    /// The directory in which an upstream tells of its connections, for a proxy.
    pub shared_dir: Option<&'a Path>,
}

/// The evidence of how a connection ended, and its verdict.
#[derive(Debug)]
pub(crate) struct Examined {
    pub(crate) evidence: Evidence,
    pub(crate) verdict: Verdict,
    connection: Connection,
    events: Vec<Event>,
    packets: Option<Conversation>,
}

impl Witness {
    /// Opens the sources; call it inside a tokio runtime.
    ///
    /// # Errors
    /// The evidence asked for is not available here. Without `wanted` there is no error.
    pub fn open(sources: &Sources<'_>) -> Result<Self, Unavailable> {
        let Sources { wanted, .. } = *sources;
        let mut why_not = Vec::new();
        let strongest_first = Level::ALL.into_iter().rev();
        for level in strongest_first.filter(|level| wanted.is_none_or(|wanted| wanted == *level)) {
            match Inner::open(level, sources) {
                Ok(mut inner) => {
                    if sources.for_records && level == Level::Kernel {
                        match packets(sources) {
                            Ok(packets) => inner.packets = Some(packets),
                            Err(error) => why_not.push(format!("no packets in records: {error}")),
                        }
                    }
                    inner.ends = sources.shared_dir.map(|dir| Mutex::new(Ends::of(dir)));
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

    /// Why the stronger kinds of evidence are not used, if that was not asked for.
    pub fn why_not_more(&self) -> Option<&str> {
        self.0.why_not_more.as_deref()
    }

    /// Whether the witness sees a RST that the program's own socket does not show.
    pub fn sees_resets(&self) -> bool {
        self.0.kernel.is_some() || self.0.packets.is_some()
    }

    /// Removes the kernel's trace, which must not be left behind. For all clones.
    pub async fn close(&self) {
        if let Some(kernel) = &self.0.kernel {
            kernel.close().await;
        }
    }

    /// Begins the window of a connection's life, if the counters are used.
    pub(crate) fn window(&self) -> Option<Window> {
        self.0.counters.as_ref().map(CounterWitness::begin)
    }

    /// Gathers the evidence of how a connection ended, and judges it; `None` if there was no connection. Waits up to
    /// `patience` for the evidence of a RST.
    pub(crate) async fn examine(
        &self,
        ended: &Ended,
        past: Option<Past>,
        patience: Duration,
    ) -> Option<Examined> {
        let connection = ended.connection?;
        // A dual-stack socket's addresses are IPv4-mapped; the kernel's trace and the packets name IPv4.
        let (server, client) = (canonical(connection.server), canonical(connection.client));
        let since = ended.began;
        let mut evidence = Evidence::default();
        match &ended.teller {
            Teller::Proxy(end) => evidence.client = Some(end.side),
            Teller::Upstream(end) => evidence.server = Some(end.side),
        }
        if let Some(past) = past {
            evidence.counted = past.counted().await;
        }
        let mut story = KernelStory::default();
        if let Some(kernel) = &self.0.kernel {
            let subject = Subject {
                server,
                client,
                since,
            };
            story = kernel.story(subject, patience).await;
            evidence.kernel = Some(mem::take(&mut story.word));
        }
        let mut packets = None;
        if let Some(capture) = &self.0.packets {
            // The kernel's event has been waited for, and its packets are there.
            let patience = match self.0.kernel {
                Some(_) => Duration::ZERO,
                None => patience,
            };
            packets = with_its_reset(capture, Pair::new(server, client), patience).await;
            evidence.packets = packets.as_ref().map(Conversation::ending);
        }
        if evidence.server.is_none() {
            evidence.server = self.told_by_the_server(server, client, since).await;
        }
        Some(Examined {
            verdict: Verdict::of(&evidence, server),
            evidence,
            connection: Connection { server, client },
            events: story.events,
            packets,
        })
    }
}

impl Examined {
    /// The record of `ended`, with the calls from its tape.
    pub(crate) fn into_record(self, ended: &mut Ended) -> Record {
        let Connection { server, client } = self.connection;
        let lane = match ended.teller {
            Teller::Proxy(_) => Lane::Proxy,
            Teller::Upstream(_) => Lane::Upstream,
        };
        let (calls, left_out) = mem::take(&mut ended.tape).into_calls();
        let mut events = at_the_client(ended);
        events.extend(calls.iter().map(|moment| Event::call(lane, moment)));
        events.extend(remarks(lane, &calls, ended.head_bytes));
        events.extend(self.events);
        let of_wire = self.packets.iter().flat_map(|it| it.events(server));
        // A kept connection's earlier packets belong to earlier exchanges.
        events.extend(of_wire.filter(|event| event.at_ns >= nanos(ended.began)));
        events.sort_by_key(|event| event.at_ns);
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let asked = ended.request.is_some();
        Record {
            version: RECORD_VERSION,
            boot_id: BOOT_ID.clone(),
            unix_time: now.map_or(0, |now| now.as_secs()),
            server,
            client,
            request: ended.request.clone(),
            outcome: asked.then(|| ended.outcome.to_string()),
            verdict: self.verdict,
            evidence: self.evidence,
            events,
            left_out,
            packets: self.packets,
        }
    }
}

/// Notes of the client's request and of what it got, as far as the proxy knows.
fn at_the_client(ended: &Ended) -> Vec<Event> {
    let (Teller::Proxy(end), Some(asked)) = (&ended.teller, &ended.request) else {
        return Vec::new();
    };
    let got = match ended.outcome {
        Outcome::Whole | Outcome::Sent => "got the whole response".to_owned(),
        Outcome::ClientLeft => "left before the end".to_owned(),
        Outcome::Truncated => format!("cut: {}", end.progress()),
        Outcome::Abandoned => "abandoned: the proxy ends".to_owned(),
        Outcome::NoResponse | Outcome::Refused => {
            format!("gets a {}", end.status.unwrap_or_default())
        }
    };
    let note = |at, text| Event::note(at, Lane::Client, text);
    vec![note(ended.began, asked.clone()), note(ended.ended, got)]
}

/// The capture of the server's port.
fn packets(sources: &Sources<'_>) -> Result<Packets, Unavailable> {
    match sources.with_payload {
        true => Packets::with_payload(sources.port),
        false => Packets::open(sources.port),
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
    /// What the server tells of the connection in the shared directory, if there is one.
    async fn told_by_the_server(
        &self,
        server: SocketAddr,
        client: SocketAddr,
        since: Duration,
    ) -> Option<ServerSide> {
        // No code panics while it holds the lock.
        let ends = self.0.ends.as_ref()?;
        let ends = || ends.lock().unwrap_or_else(PoisonError::into_inner);
        if !ends().are_told() {
            return None;
        }
        let _slot = self.0.looking.try_acquire().ok()?;
        let mut pause = FIRST_PAUSE;
        loop {
            sleep(pause).await;
            let told = ends().find(Pair::new(server, client), since);
            if told.is_some() || pause >= LAST_PAUSE {
                return told;
            }
            pause *= 2;
        }
    }
}

impl Inner {
    fn open(level: Level, sources: &Sources<'_>) -> Result<Self, Unavailable> {
        let mut inner = Self::default();
        match level {
            Level::Sockets => {}
            Level::Counters => {
                let counters = CounterWitness::open().map_err(Unavailable::NoCounters)?;
                inner.counters = Some(counters);
            }
            Level::Packets => inner.packets = Some(packets(sources)?),
            Level::Kernel => {
                let kernel = KernelWitness::open(sources.port)?;
                if !kernel.format().tells_closes_apart() {
                    return Err(Unavailable::NoReasons);
                }
                inner.kernel = Some(kernel);
            }
        }
        Ok(inner)
    }
}
