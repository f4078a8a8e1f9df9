use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::{
    BadLine, CloseEvent, Event, Format, Judged, Kernel, KernelClose, KernelReset, KernelWord,
    Killed, Lane, Ledger, Line, Pair, Place, Scope, Side, State, Unavailable, What, monotonic_now,
};
use rstlab_wire::nanos;

/// Most connections that are remembered, and most events of each: half a second's at 15,000 resets a second, which is
/// as long as anybody waits for a word on one.
const MOST_CONNECTIONS: usize = 8192;
const MOST_EVENTS: usize = 8;

/// Most questions that wait for the task; whoever asks then waits too.
const MOST_QUESTIONS: usize = 1024;

/// From how many askers on those who have gone are looked for.
const MANY_ASKERS: usize = 4096;

/// What the kernel said of one connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KernelStory {
    /// In short.
    pub word: KernelWord,
    /// Everything, in order of time.
    pub events: Vec<Event>,
}

/// Which connection is asked about.
#[derive(Debug, Clone, Copy)]
pub struct Subject {
    /// Who accepted it.
    pub server: SocketAddr,
    /// Who made it.
    pub client: SocketAddr,
    /// A moment before it began, on `CLOCK_MONOTONIC`: what is older belongs to another on the same ports.
    pub since: Duration,
}

/// Listens to the kernel in a task of its own, remembers what it said of the connections of one port, and answers
/// questions about them. Cloning is cheap; the trace instance goes when the last clone does.
#[derive(Debug, Clone)]
pub struct KernelWitness {
    questions: mpsc::Sender<Question>,
    task: Arc<Mutex<Option<JoinHandle<()>>>>,
    stop: CancellationToken,
    format: Format,
}

#[derive(Debug)]
struct Question {
    subject: Subject,
    /// Answer when a RST has been sent, and not before.
    at_reset: bool,
    answer: oneshot::Sender<KernelStory>,
}

impl KernelWitness {
    /// Starts to listen, in the current tokio runtime.
    ///
    /// # Errors
    /// As [`Kernel::open`].
    pub fn open(port: u16) -> Result<Self, Unavailable> {
        let kernel = Kernel::open(Scope::Connections { port })?;
        let format = kernel.format().clone();
        let (questions, asked) = mpsc::channel(MOST_QUESTIONS);
        let stop = CancellationToken::new();
        let task = tokio::spawn(listen(kernel, asked, stop.clone()));
        Ok(Self {
            questions,
            task: Arc::new(Mutex::new(Some(task))),
            stop,
            format,
        })
    }

    /// What this kernel can say.
    pub fn format(&self) -> &Format {
        &self.format
    }

    /// Stops listening, and returns when the trace instance is gone. For all clones.
    pub async fn close(&self) {
        self.stop.cancel();
        // No code panics while it holds the lock.
        let task = self
            .task
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(task) = task {
            // It has nothing to say.
            let _ = task.await;
        }
    }

    /// Everything that the kernel has said of a connection until now; waits up to `patience` for a RST.
    pub async fn story(&self, subject: Subject, patience: Duration) -> KernelStory {
        if !patience.is_zero()
            && let Ok(Some(story)) = timeout(patience, self.ask(subject, true)).await
        {
            return story;
        }
        // The task has ended: the trace could not be read.
        self.ask(subject, false).await.unwrap_or(KernelStory {
            word: KernelWord {
                incomplete: true,
                ..KernelWord::default()
            },
            events: Vec::new(),
        })
    }

    async fn ask(&self, subject: Subject, at_reset: bool) -> Option<KernelStory> {
        let (answer, answered) = oneshot::channel();
        let question = Question {
            subject,
            at_reset,
            answer,
        };
        self.questions.send(question).await.ok()?;
        answered.await.ok()
    }
}

async fn listen(mut kernel: Kernel, mut asked: mpsc::Receiver<Question>, stop: CancellationToken) {
    let mut memory = Memory::default();
    let mut lines = Vec::new();
    loop {
        let read = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            question = asked.recv() => match question {
                // What happened before the question belongs to the answer.
                Some(question) => {
                    let read = kernel.drain(&mut lines);
                    memory.take(&mut lines);
                    memory.asked(question);
                    read
                }
                None => return,
            },
            read = kernel.read(&mut lines) => read,
            () = memory.ledger.until_due() => Ok(()),
        };
        if let Err(error) = read {
            tracing::error!("the kernel's trace cannot be read any more: {error}");
            return;
        }
        memory.take(&mut lines);
        memory.due(monotonic_now());
    }
}

/// What has been said of late.
#[derive(Debug, Default)]
struct Memory {
    ledger: Ledger,
    judged: Vec<Judged>,
    connections: HashMap<Pair, VecDeque<Said>>,
    /// With the time of what was then the latest of each; oldest first.
    order: VecDeque<(Pair, Duration)>,
    killed: Killed,
    lost: Option<Duration>,
    waiting: HashMap<Pair, Vec<Question>>,
}

#[derive(Debug, Clone)]
enum Said {
    Reset(Judged),
    Close(CloseEvent),
}

impl Said {
    fn is_echo(&self) -> bool {
        matches!(self, Said::Reset(judged) if judged.place != Place::First)
    }

    fn time(&self) -> Duration {
        match self {
            Said::Reset(judged) => judged.event.stamp.time,
            Said::Close(close) => close.stamp.time,
        }
    }
}

impl Memory {
    fn take(&mut self, lines: &mut Vec<Result<Line, BadLine>>) {
        for line in lines.drain(..) {
            match line {
                Ok(Line::Reset(event)) => self.ledger.see(event, &mut self.judged),
                // What a RST does to whoever gets it is no close of theirs.
                Ok(Line::Close(event)) if event.stamp.in_interrupt => {}
                Ok(Line::Close(event)) => {
                    self.remember(Pair::new(event.side, event.peer), Said::Close(event));
                }
                Ok(Line::Kill(event)) => self.killed.see(&event),
                Ok(Line::Lost { .. }) => self.lost = Some(monotonic_now()),
                Err(bad) => {
                    tracing::warn!("{bad}");
                    self.lost = Some(monotonic_now());
                }
            }
        }
        self.tell();
    }

    fn due(&mut self, now: Duration) {
        self.ledger.due(now, &mut self.judged);
        self.tell();
    }

    /// Files what has been judged, and answers those who waited for it.
    fn tell(&mut self) {
        for judged in std::mem::take(&mut self.judged) {
            let event = &judged.event;
            let Some(to) = event.destination else {
                continue;
            };
            let pair = Pair::new(event.source, to);
            self.remember(pair, Said::Reset(judged));
            for question in self.waiting.remove(&pair).unwrap_or_default() {
                self.asked(question);
            }
        }
    }

    fn remember(&mut self, pair: Pair, said: Said) {
        let of = self.connections.entry(pair).or_default();
        if of.is_empty() {
            self.order.push_back((pair, said.time()));
        }
        if of.len() == MOST_EVENTS {
            if said.is_echo() {
                // What it echoes is worth more.
                return;
            }
            of.pop_front();
        }
        of.push_back(said);
        while self.order.len() > MOST_CONNECTIONS
            && let Some((oldest, filed)) = self.order.pop_front()
        {
            let latest = self.connections.get(&oldest).and_then(VecDeque::back);
            match latest.map(Said::time) {
                // Its ports were used again: it is not as old as it seems.
                Some(latest) if latest > filed => self.order.push_back((oldest, latest)),
                _ => drop(self.connections.remove(&oldest)),
            }
        }
    }

    /// Answers now, or keeps the question until there is a RST to tell of.
    fn asked(&mut self, question: Question) {
        let story = self.story(&question.subject);
        if question.at_reset && story.word.reset.is_none() {
            if self.waiting.len() > MANY_ASKERS {
                self.waiting.retain(|_, waiting| {
                    waiting.retain(|one| !one.answer.is_closed());
                    !waiting.is_empty()
                });
            }
            let Subject { server, client, .. } = question.subject;
            let pair = Pair::new(server, client);
            self.waiting.entry(pair).or_default().push(question);
            return;
        }
        // Whoever has stopped waiting asks again or has gone.
        let _ = question.answer.send(story);
    }

    fn story(&self, subject: &Subject) -> KernelStory {
        let Subject {
            server,
            client,
            since,
        } = *subject;
        let side = |address| {
            if address == server {
                Side::Server
            } else {
                Side::Client
            }
        };
        let mut story = KernelStory::default();
        story.word.incomplete = self.lost.is_some_and(|lost| lost >= since);
        let said = self.connections.get(&Pair::new(server, client));
        let said = || {
            let said = said.into_iter().flatten();
            said.filter(|said| said.time() >= since)
        };
        // A side that comes to CLOSED after the other's RST did not close: the RST did that.
        let by_a_reset = |event: &CloseEvent| {
            event.state == State::Close
                && said().any(|it| match it {
                    Said::Reset(judged) => {
                        let reset = &judged.event;
                        reset.source == event.peer && reset.stamp.time <= event.stamp.time
                    }
                    Said::Close(_) => false,
                })
        };
        for said in said() {
            let (stamp, what) = match said {
                Said::Reset(judged) => {
                    let event = &judged.event;
                    if judged.place == Place::First && story.word.reset.is_none() {
                        story.word.reset = Some(KernelReset {
                            at_ns: nanos(event.stamp.time),
                            from: event.source,
                            reason: event.reason.clone(),
                            state: event.state.clone(),
                            sender: event.sender(),
                        });
                    }
                    let what = What::Reset {
                        from: side(event.source),
                        reason: event.reason.clone(),
                        state: event.state.clone(),
                    };
                    (&event.stamp, what)
                }
                Said::Close(event) if by_a_reset(event) => continue,
                Said::Close(event) => {
                    let by = event.stamp.process();
                    if event.side == server && story.word.closed.is_none() {
                        story.word.closed = Some(KernelClose {
                            at_ns: nanos(event.stamp.time),
                            state: event.state.clone(),
                            by: by.clone(),
                        });
                        let killed = self.killed.before(&event.stamp);
                        if let Some(killed) = killed.filter(|killed| *killed >= since) {
                            story.word.killed = true;
                            story.events.push(Event {
                                at_ns: nanos(killed),
                                lane: Lane::Kernel,
                                what: What::Killed {
                                    process: by.clone(),
                                },
                            });
                        }
                    }
                    let what = What::Closed {
                        from: side(event.side),
                        state: event.state.clone(),
                        by,
                    };
                    (&event.stamp, what)
                }
            };
            story.events.push(Event {
                at_ns: nanos(stamp.time),
                lane: Lane::Kernel,
                what,
            });
        }
        story.events.sort_by_key(|event| event.at_ns);
        story
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Reason;
    use crate::kernel::fixture::reset_event;

    fn address(number: usize) -> SocketAddr {
        let [.., high, low] = number.to_be_bytes();
        SocketAddr::from(([127, 0, high, low], 4000))
    }

    fn server() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 8000))
    }

    /// A RST to the client of that number.
    fn reset(number: usize, millis: u64, place: Place) -> (Pair, Said) {
        let to = Some(address(number));
        let event = reset_event(millis, server(), to, Reason::AbortOnData, State::Close);
        let pair = Pair::new(server(), address(number));
        (pair, Said::Reset(Judged { event, place }))
    }

    fn first_reset(memory: &Memory, number: usize) -> Option<u64> {
        let story = memory.story(&Subject {
            server: server(),
            client: address(number),
            since: Duration::ZERO,
        });
        Some(story.word.reset?.at_ns / 1_000_000)
    }

    #[test]
    fn echoes_do_not_push_out_what_they_echo() {
        let mut memory = Memory::default();
        let (pair, said) = reset(1, 5, Place::First);
        memory.remember(pair, said);
        for millis in 6..100 {
            let (pair, said) = reset(1, millis, Place::Echo);
            memory.remember(pair, said);
        }
        assert_eq!(first_reset(&memory, 1), Some(5));
        assert_eq!(memory.connections[&pair].len(), MOST_EVENTS);
    }

    #[test]
    fn only_the_latest_connections_are_remembered() {
        let mut memory = Memory::default();
        for number in 0..3 * MOST_CONNECTIONS {
            for number in [number, 0] {
                let (pair, said) = reset(number, number as u64, Place::First);
                memory.remember(pair, said);
            }
        }
        assert_eq!(memory.connections.len(), MOST_CONNECTIONS);
        assert_eq!(memory.order.len(), MOST_CONNECTIONS);
        assert_eq!(first_reset(&memory, 1), None);
        let latest = 3 * MOST_CONNECTIONS - 1;
        assert_eq!(first_reset(&memory, latest), Some(latest as u64));
    }
}
