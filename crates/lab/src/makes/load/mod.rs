//! `rstlab load`: sends requests, and says of each response whether it came whole.
//!
//! Other load generators count errors. This one tells them apart: a response cut by a RST, a response cut by an early
//! end of the stream, no response at all, a refused connection, a time limit. Each comes with the system call that
//! failed, its error number, and how far the exchange had come.
//!
//! `pace` says when a request starts, `worker` sends one request after the other, `connection` wraps a socket in the
//! wrappers of `rstlab_wire`, `outcome` judges a response, `report` counts.

mod args;
pub(crate) mod connection;
mod meter;
mod outcome;
mod pace;
mod report;
mod text;
mod worker;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::shared::other_protocol::other_protocol;
pub use crate::shared::target::Target;
pub use args::{LoadArgs, LoadConfig, execute};
pub use report::{Cuts, FailedAs, Latency, LoadFailure, LoadReport};

use report::LoadTally;
use worker::{RunShared, Worker, WorkerEvent};

/// The longest a run may take.
pub const MAX_TIME: Duration = Duration::from_secs(3600);

/// The most connections at once.
pub const MAX_CONNECTIONS: usize = 10_000;

/// At least this many connections can be watched for a late reset at a time, beside those that carry requests.
const MIN_WATCHERS: usize = 256;

/// The longest that a server is asked for its protocol.
const MAX_QUESTION: Duration = Duration::from_secs(5);

/// What to send, how, and how much of it.
#[derive(Debug, Clone)]
pub struct LoadPlan {
    /// The server.
    pub target: Target<SocketAddr>,
    /// How many requests.
    pub extent: Extent,
    /// Requests before those: they open the connections, and the report leaves them out. The first request that counts
    /// starts after the last of them is done.
    pub warm_up: u64,
    /// Connections at once, 1 to [`MAX_CONNECTIONS`].
    pub connections: usize,
    /// Requests a second over all connections; `None` is as fast as the answers come.
    pub rate: Option<f64>,
    /// Bytes of the body of a POST; `None` sends GET.
    pub body_bytes: Option<u64>,
    /// How head and body are written.
    pub writes: RequestWrites,
    /// Limit for each request, from connecting to the last byte of the response.
    pub timeout: Duration,
}

/// How many requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// This many, within [`MAX_TIME`].
    Requests(u64),
    /// As many as start within this time, at most [`MAX_TIME`].
    Duration(Duration),
}

/// How a request's head and body are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestWrites {
    /// In one `writev(2)` if they fit in 64 KiB. A connection is kept if the server keeps it.
    Joined,
    /// In two, with a pause between them, on a connection of its own for each request.
    Split {
        /// The pause.
        gap: Duration,
    },
}

impl LoadPlan {
    /// 100 GET requests over 10 connections.
    pub fn new(target: Target<SocketAddr>) -> Self {
        Self {
            target,
            extent: Extent::Requests(100),
            warm_up: 0,
            connections: 10,
            rate: None,
            body_bytes: None,
            writes: RequestWrites::Joined,
            timeout: Duration::from_secs(30),
        }
    }
}

/// Carries out a plan. `progress` is called after each request with the number of requests that are done, and with 0 after
/// the last request of a warm-up.
///
/// # Panics
/// As `progress` does.
pub async fn run(plan: &LoadPlan, progress: impl Fn(u64) + Sync) -> LoadReport {
    run_until(plan, CancellationToken::new(), progress).await
}

/// As [`run`], but ends at once when `stop` is cancelled, or when it is known that the server speaks TLS or HTTP/2; then
/// `stop` is cancelled too. The requests that are under way then are not counted.
///
/// # Panics
/// As `progress` does.
pub async fn run_until(
    plan: &LoadPlan,
    stop: CancellationToken,
    progress: impl Fn(u64) + Sync,
) -> LoadReport {
    let connections = plan.connections.clamp(1, MAX_CONNECTIONS);
    let shared = Arc::new(RunShared {
        pace: pace::Pace::new(plan, stop.clone()),
        plan: plan.clone(),
        watchers: Arc::new(Semaphore::new(connections.max(MIN_WATCHERS))),
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

    let mut tally = LoadTally::new(shared.pace.start());
    let mut asked = false;
    let mut warm_up = plan.warm_up;
    // The channel closes when the last worker and the last watched connection have ended.
    while let Some(event) = events.recv().await {
        match event {
            WorkerEvent::Done(_) if warm_up > 0 => {
                warm_up -= 1;
                if warm_up == 0 {
                    progress(0);
                    tally = LoadTally::new(Instant::now());
                    shared.pace.end_warm_up();
                }
            }
            WorkerEvent::Done(sample) => {
                progress(tally.sample(&sample));
                if !asked && tally.doubts_the_protocol(&sample) {
                    asked = true;
                    let limit = plan.timeout.min(MAX_QUESTION);
                    if let Some(protocol) = other_protocol(&plan.target, limit).await {
                        tally.speaks(protocol);
                        stop.cancel();
                    }
                }
            }
            WorkerEvent::LateReset(failure) => tally.late_reset(failure),
            WorkerEvent::SentAgain => tally.sent_again(),
        }
    }
    while let Some(worker) = workers.join_next().await {
        if let Err(error) = worker {
            std::panic::resume_unwind(error.into_panic());
        }
    }
    tally.report(shared.pace.was_cut())
}
