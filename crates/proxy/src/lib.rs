//! rstlab-proxy: the nginx of the story.
//!
//! Forwards each request over a fresh upstream connection, or one that was kept, head and body in two writes,
//! and tells every reset it meets there: when, how much was lost, and whether it did any harm.
//!
//! The way of a request: [`run`] accepts; `client` serves the connection with hyper and ends it in stages;
//! `forward` turns a request into an exchange; `upstream` makes the connection, drives it and watches it to
//! its end, or gives it to the `pool` of those that are `kept`; `relay` hands the response on and never lets a
//! cut one look whole; `report` counts and logs.

mod case;
mod client;
mod client_io;
mod config;
mod forward;
mod headers;
mod kept;
mod outgoing;
mod pool;
mod relay;
mod report;
mod trouble;
mod upstream;

use std::io;
use std::sync::Arc;

use rstlab_wire::accept;
use rstlab_witness::Witness;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use config::{Args, Config, Writes};
pub use report::{Stats, Summary};

/// Serves `listener` until `stop` is cancelled, then finishes what runs, ten seconds at most.
///
/// Counts into `stats`, which may be read at any time, and logs the summary at the end. `witness` says of each
/// connection that was reset why.
///
/// # Errors
/// The listener fails for good.
pub async fn run(
    listener: TcpListener,
    config: Config,
    stats: Arc<Stats>,
    witness: Witness,
    stop: CancellationToken,
) -> io::Result<()> {
    // A client, its upstream connection, and one that is watched after its response.
    let idle = if config.upstream_keepalive {
        pool::MOST_IDLE
    } else {
        0
    };
    let capacity = accept::capacity(3, idle as u64);
    let tasks = TaskTracker::new();
    let shared = Arc::new(upstream::Shared::new(
        config,
        Arc::clone(&stats),
        witness,
        tasks.clone(),
        capacity,
    ));
    tasks.spawn(kept::watch(Arc::clone(&shared), stop.clone()));
    let served = accept::serve(listener, capacity, stop.clone(), tasks, |stream, peer| {
        client::connection(stream, peer, Arc::clone(&shared), stop.clone())
    })
    .await;
    stats.summary().log();
    served
}
