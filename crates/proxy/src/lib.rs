//! rstlab-proxy forwards requests as nginx does, and logs every reset of its upstream connections.
//!
//! Each request goes over a fresh upstream connection or a kept one, head and body in two writes. The log says of each
//! reset when it came, how much was lost, and whether it did any harm.
//!
//! The way of a request: a worker of [`run`] accepts; `client` serves the connection with hyper and ends it in stages;
//! `forward` turns a request into an exchange; `upstream` makes the connection, drives it and watches it to
//! its end, or gives it to the `pool` of connections that are `kept`; a large `response_body` is `spliced`; `relay` hands the response on and never lets a
//! cut one look whole; `exchange` holds the facts until the end, which the `log` and other takers get.

mod client;
mod client_io;
mod config;
mod connect;
mod exchange;
mod first_head;
mod forward;
mod headers;
mod kept;
mod log;
mod outgoing;
mod pool;
mod refuse;
mod relay;
mod response_body;
mod spliced;
mod trouble;
mod upstream;
mod watched_socket;

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use rstlab_cli::Live;
use rstlab_wire::{Slots, StopOrder, accept, workers};
use rstlab_witness::{Dispatch, Takers, Witness};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

pub use config::{ProxyConfig, Writes};

/// Serves `listener` until `stop` says otherwise, then finishes the running exchanges, for ten seconds at most, and abandons
/// the others.
///
/// Each worker has its own event loop, listening socket, pool of kept connections and counters; an exchange and both of its
/// connections stay with one worker. Each exchange's end goes to the log and to `takers`, whose counters may be read at
/// any time; the log ends with their summary. `witness` says why each connection was reset. A request takes the settings
/// as they are when it comes.
///
/// # Errors
/// A listener fails for good.
pub async fn run(
    listener: TcpListener,
    config: Live<ProxyConfig>,
    takers: Takers,
    witness: Witness,
    stop: impl Into<StopOrder>,
) -> io::Result<()> {
    let ProxyConfig {
        workers,
        upstream_keepalive,
        ..
    } = *config.now();
    let descriptors = accept::capacity(1, 0).max(2);
    // Clients leave a quarter to the upstream connections; half of that may be watched after their responses.
    let for_upstream = (descriptors / 4).max(1);
    let slots = Slots::new(descriptors, for_upstream);
    let watchers = (for_upstream / 2 / workers).max(1);
    let log = takers.and(log::ProxyLog::default());
    let numbers = Arc::new(AtomicU64::new(0));
    let worker = move |listener, stop: StopOrder| {
        let shared = Arc::new(upstream::Shared {
            dispatch: Dispatch::new(witness.clone(), log.of_a_worker()),
            tasks: TaskTracker::new(),
            slots: slots.clone(),
            watchers: Semaphore::new(watchers),
            pool: upstream_keepalive.then(pool::Pool::default),
            numbers: Arc::clone(&numbers),
            abandon: stop.abandon.clone(),
        });
        let tasks = shared.tasks.clone();
        tasks.spawn(kept::watch(Arc::clone(&shared), stop.finish.clone()));
        let config = config.clone();
        accept::serve(
            listener,
            slots.clone(),
            stop.clone(),
            tasks,
            move |stream, peer, slot| {
                client::connection(
                    stream,
                    peer,
                    slot,
                    config.clone(),
                    Arc::clone(&shared),
                    stop.clone(),
                )
            },
        )
    };
    let served = workers::serve(listener, workers, None, &stop.into(), worker).await;
    takers.totals().summary().log();
    served
}
