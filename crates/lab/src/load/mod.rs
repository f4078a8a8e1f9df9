//! `rstlab load`: sends requests, and says of each response whether it came whole.
//!
//! What a load generator usually calls an error is told apart here: a response cut by a RST, one cut by an
//! early end of the stream, no response at all, a refused connection, a time limit. Each comes with the
//! system call that failed, its error number, and how far the exchange had come.
//!
//! The parts: `pace` says when a request starts, `worker` sends one after the other, `link` is a connection
//! with the wrappers of `rstlab_wire` around it, `outcome` judges, `report` counts.

mod args;
pub(crate) mod link;
mod meter;
mod outcome;
mod pace;
mod report;
mod target;
mod text;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use args::{Args, Config, execute};
pub use report::{Cuts, FailureCount, Latency, Report};
pub use target::Target;
pub(crate) use target::Url;

use report::Tally;
use worker::{Event, Shared, Worker};

/// The longest a run may take.
pub const MOST_TIME: Duration = Duration::from_secs(3600);

/// The most connections at once.
pub const MOST_CONNECTIONS: usize = 10_000;

/// Connections that are watched for a late reset, beside those that carry requests.
const LEAST_WATCHERS: usize = 256;

/// What to send, how, and how much of it.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where to.
    pub target: Target,
    /// How much.
    pub extent: Extent,
    /// Connections at once, 1 to [`MOST_CONNECTIONS`].
    pub connections: usize,
    /// Requests a second over all connections; `None` is as fast as the answers come.
    pub rate: Option<f64>,
    /// `None` sends GET, else POST with a body of so many bytes.
    pub body_bytes: Option<u64>,
    /// How head and body are written.
    pub writes: Writes,
    /// Limit for each request, from connecting to the last byte of the response.
    pub timeout: Duration,
}

/// How many requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// So many, within [`MOST_TIME`].
    Requests(u64),
    /// As many as start within this time, at most [`MOST_TIME`].
    Duration(Duration),
}

/// How a request's head and body are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writes {
    /// In one `writev(2)`, as far as the body fits in 64 KiB. Connections are kept if the server keeps them.
    Joined,
    /// In two, with a pause between them, on a connection of its own for each request.
    Split {
        /// The pause.
        gap: Duration,
    },
}

impl Plan {
    /// 100 GET requests over 10 connections.
    pub fn new(target: Target) -> Self {
        Self {
            target,
            extent: Extent::Requests(100),
            connections: 10,
            rate: None,
            body_bytes: None,
            writes: Writes::Joined,
            timeout: Duration::from_secs(30),
        }
    }
}

/// Carries a plan out; `progress` is told how many requests are done, after each.
///
/// # Panics
/// As `progress` does.
pub async fn run(plan: &Plan, progress: impl Fn(u64) + Sync) -> Report {
    run_until(plan, CancellationToken::new(), progress).await
}

/// As [`run`], but ends at once when `stop` is cancelled; requests that then run are not counted.
///
/// # Panics
/// As `progress` does.
pub async fn run_until(
    plan: &Plan,
    stop: CancellationToken,
    progress: impl Fn(u64) + Sync,
) -> Report {
    let connections = plan.connections.clamp(1, MOST_CONNECTIONS);
    let shared = Arc::new(Shared {
        pace: pace::Pace::new(plan.extent, plan.rate, stop),
        plan: plan.clone(),
        watchers: Arc::new(Semaphore::new(connections.max(LEAST_WATCHERS))),
    });

    let (sender, mut events) = mpsc::channel(1024);
    let mut workers = JoinSet::new();
    for _ in 0..connections {
        let worker = Worker {
            shared: Arc::clone(&shared),
            events: sender.clone(),
            kept: None,
        };
        workers.spawn(worker.work());
    }
    drop(sender);

    let mut tally = Tally::new(shared.pace.start());
    // Ends with the last worker and the last watched connection.
    while let Some(event) = events.recv().await {
        match event {
            Event::Done(sample) => progress(tally.sample(&sample)),
            Event::LateReset(failure) => tally.late_reset(failure),
            Event::SentAgain => tally.sent_again(),
        }
    }
    while let Some(worker) = workers.join_next().await {
        if let Err(error) = worker {
            std::panic::resume_unwind(error.into_panic());
        }
    }
    tally.report(shared.pace.was_cut())
}
