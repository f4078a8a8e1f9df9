//! Listens to the kernel in a task of its own, and answers questions about connections.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rstlab_wire::monotonic_now;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::format::Format;
use super::history::{History, KernelStory, StoryQuestion, Subject};
use super::pipe::Scope;
use super::trace::KernelTrace;
use crate::evidence::KernelWord;
use crate::unavailable::Unavailable;

/// Bounded queue of questions; a full queue makes the asker wait.
const MAX_QUESTIONS: usize = 1024;

/// Pauses between two looks at the trace: while nobody waits for a RST, and while somebody does. A thread that is woken
/// by each event costs more CPU time than the reading of the events.
const PAUSE: Duration = Duration::from_millis(100);
const SHORT_PAUSE: Duration = Duration::from_millis(1);

/// Listens to the kernel's trace in a task of its own, remembers what it told of the connections of one port, and
/// answers questions about them. Cloning is cheap; the trace instance goes with the last clone.
#[derive(Debug, Clone)]
pub struct KernelWitness {
    questions: mpsc::Sender<StoryQuestion>,
    task: Arc<Mutex<Option<JoinHandle<()>>>>,
    stop: CancellationToken,
    format: Format,
}

impl KernelWitness {
    /// Starts to listen, in the current tokio runtime.
    ///
    /// # Errors
    /// As [`KernelTrace::open`].
    pub fn open(port: u16) -> Result<Self, Unavailable> {
        let trace = KernelTrace::open(Scope::Closes(&[port]))?;
        let format = *trace.format();
        let (questions, asked) = mpsc::channel(MAX_QUESTIONS);
        let stop = CancellationToken::new();
        let task = tokio::spawn(listen(trace, asked, stop.clone()));
        Ok(Self {
            questions,
            task: Arc::new(Mutex::new(Some(task))),
            stop,
            format,
        })
    }

    /// Which reasons this kernel can give.
    pub fn format(&self) -> &Format {
        &self.format
    }

    /// Stops listening, for all clones, and returns when the trace instance is gone.
    pub async fn close(&self) {
        self.stop.cancel();
        // No code panics while it holds the lock.
        let task = self
            .task
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(task) = task {
            // The task returns nothing, and a panic in it has been told.
            let _ = task.await;
        }
    }

    /// Everything that the kernel has told of a connection until now; waits up to `patience` for a RST.
    pub async fn story(&self, subject: Subject, patience: Duration) -> KernelStory {
        if !patience.is_zero()
            && let Ok(Some(story)) = timeout(patience, self.ask(subject, true)).await
        {
            return story;
        }
        // If the task does not answer, it has ended because the trace could not be read.
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
        let question = StoryQuestion {
            subject,
            at_reset,
            answer,
        };
        self.questions.send(question).await.ok()?;
        answered.await.ok()
    }
}

async fn listen(
    mut trace: KernelTrace,
    mut asked: mpsc::Receiver<StoryQuestion>,
    stop: CancellationToken,
) {
    let mut history = History::default();
    let mut events = Vec::new();
    loop {
        let pause = match history.is_waited_for() {
            true => SHORT_PAUSE,
            false => PAUSE,
        };
        let question = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            question = asked.recv() => match question {
                Some(question) => Some(question),
                None => return,
            },
            () = sleep(pause) => None,
        };
        // Events from before a question belong to its answer.
        let read = trace.drain(&mut events);
        history.take(&mut events, monotonic_now());
        match question {
            Some(question) => history.asked(question),
            None => history.forget_those_who_gave_up(),
        }
        if let Err(error) = read {
            tracing::error!("the kernel's trace cannot be read any more: {error}");
            return;
        }
    }
}
