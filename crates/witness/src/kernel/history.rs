//! Remembers the kernel's latest events of each connection of one port, and answers questions about them.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use rstlab_wire::nanos;
use tokio::sync::oneshot;

use super::event::CloseEvent;
use super::trace::{TraceEvent, TracedClose, TracedReset};
use crate::evidence::{
    Event, KernelClose, KernelWord, Lane, Pair, Place, Process, Side, State, What,
};

/// Most connections that are remembered, and most events of each. At 15,000 resets a second these are the connections
/// of half a second; nobody waits longer for the kernel's word on a RST.
const MAX_CONNECTIONS: usize = 8192;
const MAX_EVENTS: usize = 8;

/// If questions about more connections than this wait, the questions of those who gave up are dropped.
const MAX_WAITING: usize = 4096;

/// What the kernel's trace has told of one connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KernelStory {
    /// How the connection ended.
    pub word: KernelWord,
    /// All its events, in order of time.
    pub events: Vec<Event>,
}

/// Which connection is asked about.
#[derive(Debug, Clone, Copy)]
pub struct Subject {
    /// Who accepted the connection.
    pub server: SocketAddr,
    /// Who connected.
    pub client: SocketAddr,
    /// A moment before the connection began, on `CLOCK_MONOTONIC`: older events belong to another connection on the
    /// same ports.
    pub since: Duration,
}

#[derive(Debug)]
pub(super) struct StoryQuestion {
    pub(super) subject: Subject,
    /// Whether to wait with the answer until a RST has been sent.
    pub(super) at_reset: bool,
    pub(super) answer: oneshot::Sender<KernelStory>,
}

/// The latest events of the kernel's trace, and who waits for the next ones.
#[derive(Debug, Default)]
pub(super) struct History {
    connections: HashMap<Pair, VecDeque<HistoryEntry>>,
    /// Each connection once, with the time of its latest event when it was put here; oldest first.
    order: VecDeque<(Pair, Duration)>,
    lost: Option<Duration>,
    waiting: HashMap<Pair, Vec<StoryQuestion>>,
}

#[derive(Debug, Clone)]
enum HistoryEntry {
    Reset(TracedReset),
    Close(TracedClose),
}

impl HistoryEntry {
    fn is_echo(&self) -> bool {
        matches!(self, HistoryEntry::Reset(reset) if reset.place != Place::First)
    }

    fn time(&self) -> Duration {
        match self {
            HistoryEntry::Reset(reset) => reset.event.stamp.time,
            HistoryEntry::Close(close) => close.event.stamp.time,
        }
    }
}

impl History {
    /// Takes the events until `now`, and answers those who waited for a RST.
    pub(super) fn take(&mut self, events: &mut Vec<TraceEvent>, now: Duration) {
        for event in events.drain(..) {
            match event {
                TraceEvent::Reset(reset) => {
                    let Some(to) = reset.event.destination else {
                        continue;
                    };
                    let pair = Pair::new(reset.event.source, to);
                    self.remember(pair, HistoryEntry::Reset(reset));
                    for question in self.waiting.remove(&pair).unwrap_or_default() {
                        self.asked(question);
                    }
                }
                TraceEvent::Close(close) => {
                    let pair = Pair::new(close.event.side, close.event.peer);
                    self.remember(pair, HistoryEntry::Close(close));
                }
                TraceEvent::Lost { .. } => self.lost = Some(now),
                TraceEvent::Bad(bad) => {
                    tracing::warn!("{bad}");
                    self.lost = Some(now);
                }
            }
        }
    }

    fn remember(&mut self, pair: Pair, entry: HistoryEntry) {
        let of = self.connections.entry(pair).or_default();
        if of.is_empty() {
            self.order.push_back((pair, entry.time()));
        }
        if of.len() == MAX_EVENTS {
            if entry.is_echo() {
                // An echo must not push out the RST that decided.
                return;
            }
            of.pop_front();
        }
        of.push_back(entry);
        while self.order.len() > MAX_CONNECTIONS
            && let Some((oldest, filed)) = self.order.pop_front()
        {
            let latest = self.connections.get(&oldest).and_then(VecDeque::back);
            match latest.map(HistoryEntry::time) {
                // The connection had later events, or its ports were used again.
                Some(latest) if latest > filed => self.order.push_back((oldest, latest)),
                _ => drop(self.connections.remove(&oldest)),
            }
        }
    }

    /// Answers now, or keeps the question until there is a RST to tell of.
    pub(super) fn asked(&mut self, question: StoryQuestion) {
        let story = self.story(&question.subject);
        if question.at_reset && story.word.reset.is_none() {
            if self.waiting.len() > MAX_WAITING {
                self.forget_those_who_gave_up();
            }
            let Subject { server, client, .. } = question.subject;
            let pair = Pair::new(server, client);
            self.waiting.entry(pair).or_default().push(question);
            return;
        }
        // It fails if the asker has given up.
        let _ = question.answer.send(story);
    }

    /// Whether somebody waits for a RST, or has waited and given up.
    pub(super) fn is_waited_for(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Drops the questions of those who no longer wait.
    pub(super) fn forget_those_who_gave_up(&mut self) {
        self.waiting.retain(|_, waiting| {
            waiting.retain(|one| !one.answer.is_closed());
            !waiting.is_empty()
        });
    }

    fn story(&self, subject: &Subject) -> KernelStory {
        let Subject {
            server,
            client,
            since,
        } = *subject;
        let mut story = KernelStory::default();
        story.word.incomplete = self.lost.is_some_and(|lost| lost >= since);
        let entries = self.connections.get(&Pair::new(server, client));
        let entries = || {
            let entries = entries.into_iter().flatten();
            entries.filter(|entry| entry.time() >= since)
        };
        // A side that comes to CLOSED after the other side's RST did not close: the RST closed it.
        let by_a_reset = |close: &CloseEvent| {
            close.state == State::Close
                && entries().any(|entry| match entry {
                    HistoryEntry::Reset(TracedReset { event, .. }) => {
                        event.source == close.peer && event.stamp.time <= close.stamp.time
                    }
                    HistoryEntry::Close(_) => false,
                })
        };
        for entry in entries() {
            let (stamp, what) = match entry {
                HistoryEntry::Reset(reset) => {
                    let event = &reset.event;
                    if reset.place == Place::First && story.word.reset.is_none() {
                        let told = event.evidence();
                        if event.source == server
                            && let Some(process) = &told.sender
                        {
                            story.killed(reset.killed, since, process);
                        }
                        story.word.reset = Some(told);
                    }
                    let what = What::Reset {
                        from: Side::of(event.source, server),
                        reason: event.reason.clone(),
                        state: event.state.clone(),
                    };
                    (&event.stamp, what)
                }
                HistoryEntry::Close(TracedClose { event, .. }) if by_a_reset(event) => continue,
                HistoryEntry::Close(TracedClose { event, killed }) => {
                    let by = event.stamp.process();
                    if event.side == server && story.word.closed.is_none() {
                        story.word.closed = Some(KernelClose {
                            at_ns: nanos(event.stamp.time),
                            state: event.state.clone(),
                            by: by.clone(),
                        });
                        story.killed(*killed, since, &by);
                    }
                    let what = What::Closed {
                        from: Side::of(event.side, server),
                        state: event.state.clone(),
                        by,
                    };
                    (&event.stamp, what)
                }
            };
            story.add(stamp.time, what);
        }
        story.events.sort_by_key(|event| event.at_ns);
        story
    }
}

impl KernelStory {
    fn add(&mut self, at: Duration, what: What) {
        self.events.push(Event {
            at_ns: nanos(at),
            lane: Lane::Kernel,
            what,
        });
    }

    /// Notes that the process that closed the server's side had been killed, if `at` says when.
    fn killed(&mut self, at: Option<Duration>, since: Duration, process: &Process) {
        if let Some(at) = at.filter(|at| *at >= since)
            && !self.word.killed
        {
            self.word.killed = true;
            let process = process.clone();
            self.add(at, What::Killed { process });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::Reason;
    use crate::kernel::fixture::reset_event;

    fn address(number: usize) -> SocketAddr {
        let [.., high, low] = number.to_be_bytes();
        SocketAddr::from(([127, 0, high, low], 4000))
    }

    fn server() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 8000))
    }

    /// A RST to the client with this number.
    fn reset(number: usize, millis: u64, place: Place) -> (Pair, HistoryEntry) {
        let to = Some(address(number));
        let event = reset_event(millis, server(), to, Reason::AbortOnData, State::Close);
        let pair = Pair::new(server(), address(number));
        let killed = None;
        (
            pair,
            HistoryEntry::Reset(TracedReset {
                event,
                place,
                killed,
            }),
        )
    }

    fn first_reset(history: &History, number: usize) -> Option<u64> {
        let story = history.story(&Subject {
            server: server(),
            client: address(number),
            since: Duration::ZERO,
        });
        Some(story.word.reset?.at_ns / 1_000_000)
    }

    #[test]
    fn echoes_do_not_push_out_the_rst_that_decided() {
        let mut history = History::default();
        let (pair, entry) = reset(1, 5, Place::First);
        history.remember(pair, entry);
        for millis in 6..100 {
            let (pair, entry) = reset(1, millis, Place::Echo);
            history.remember(pair, entry);
        }
        assert_eq!(first_reset(&history, 1), Some(5));
        assert_eq!(history.connections[&pair].len(), MAX_EVENTS);
    }

    #[test]
    fn only_the_latest_connections_are_remembered() {
        let mut history = History::default();
        for number in 0..3 * MAX_CONNECTIONS {
            for number in [number, 0] {
                let (pair, entry) = reset(number, number as u64, Place::First);
                history.remember(pair, entry);
            }
        }
        assert_eq!(history.connections.len(), MAX_CONNECTIONS);
        assert_eq!(history.order.len(), MAX_CONNECTIONS);
        assert_eq!(first_reset(&history, 1), None);
        let latest = 3 * MAX_CONNECTIONS - 1;
        assert_eq!(first_reset(&history, latest), Some(latest as u64));
    }
}
