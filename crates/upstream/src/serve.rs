//! Serves connections, each in the process that the mode says, and hands on how it ended.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rstlab_cli::Live;
use rstlab_wire::{Slots, StopOrder, SysCall, Tape, accept, workers};
use rstlab_witness::{Connection, Dispatch, Takers, Witness};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;

use crate::child;
use crate::config::UpstreamConfig;
use crate::ended::Accepted;
use crate::exchange::{ConnectionEnd, connection};
use crate::log::UpstreamLog;

/// Why a mode with a child process can't be served.
const NO_PROGRAM: &str =
    "answers in processes of its own: it needs the path of the program rstlab-upstream";

/// Serves until `stop` says otherwise, then finishes the running connections, for ten seconds at most, and abandons the
/// others.
///
/// Each connection's end goes to the log and to `takers`; the log ends with the summary of their counters. `witness` says
/// why each connection was reset. A connection takes the settings as they are when it is accepted.
///
/// # Errors
/// The listener fails, or a mode with a child process has no program to start ([`UpstreamConfig::program`]).
pub async fn run(
    listener: TcpListener,
    config: Live<UpstreamConfig>,
    takers: Takers,
    witness: Witness,
    stop: impl Into<StopOrder>,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    let now = config.now();
    if now.mode.has_child() && now.program.is_none() {
        let text = format!("mode {} {NO_PROGRAM}", now.mode.as_str());
        return Err(io::Error::new(io::ErrorKind::Unsupported, text));
    }
    tracing::info!(
        %address,
        mode = now.mode.as_str(),
        status = now.status.as_u16(),
        response_bytes = now.response_bytes,
        think = ?now.think,
        body = ?now.body_policy(),
        close = ?now.close_policy(),
        workers = now.workers,
        witness = %witness.level(),
        not_more = witness.why_not_more(),
        "listening"
    );
    let children = if now.mode.has_child() {
        child::MAX_CHILDREN
    } else {
        0
    };
    // A child costs its pipe, the signal of its end, and for a moment the other end of the pipe.
    let slots = Slots::new(accept::capacity(1, 3 * children as u64), 0);
    let log = takers.and(UpstreamLog::default());
    let numbers = Arc::new(AtomicU64::new(0));
    let worker = move |listener, stop: StopOrder| {
        let dispatch = Dispatch::new(witness.clone(), log.of_a_worker());
        let (config, numbers) = (config.clone(), Arc::clone(&numbers));
        let tasks = TaskTracker::new();
        accept::serve(
            listener,
            slots.clone(),
            stop.clone(),
            tasks,
            move |stream: TcpStream, client, _| {
                let config = config.now();
                let mut watch = dispatch.watch();
                let mut tape = std::mem::take(&mut watch.tape);
                tape.note(tape.begin(), SysCall::Accept4, Ok(0));
                let accepted = Accepted {
                    number: numbers.fetch_add(1, Ordering::Relaxed) + 1,
                    connection: Connection {
                        server: stream.local_addr().unwrap_or(address),
                        client,
                    },
                    mode: config.mode,
                    has_child: config.mode.has_child() && config.program.is_some(),
                    child_failed: false,
                    watch,
                };
                serve(
                    stream,
                    config,
                    accepted,
                    tape,
                    dispatch.clone(),
                    stop.clone(),
                )
            },
        )
    };
    let served = workers::serve(listener, now.workers, now.sndbuf, &stop.into(), worker).await;
    let summary = takers.totals().summary();
    // What the clients got, the upstream does not know.
    tracing::info!(
        requests = summary.requests,
        resets = summary.resets,
        truncated = summary.truncated,
        abandoned = summary.abandoned,
        "summary"
    );
    served
}

/// Serves one connection in this process or in a child, as the mode says, and hands on how it ended.
async fn serve(
    stream: TcpStream,
    config: Arc<UpstreamConfig>,
    mut accepted: Accepted,
    tape: Tape,
    dispatch: Dispatch,
    stop: StopOrder,
) {
    let (end, failed, tape) = match &config.program {
        Some(program) if accepted.has_child => {
            let supervised = child::supervise(stream, program, &config, stop.clone());
            let end = match stop.abandon.run_until_cancelled(supervised).await {
                Some(Ok(end)) => end,
                Some(Err(error)) => {
                    let peer = accepted.connection.client;
                    tracing::error!(%peer, %error, "not answered");
                    accepted.child_failed = true;
                    ConnectionEnd::UNANSWERED
                }
                // The process dies with the future, and whether it had got a request is not known.
                None => ConnectionEnd {
                    abandoned: true,
                    ..ConnectionEnd::UNANSWERED
                },
            };
            (end, None, tape)
        }
        _ => connection(stream, config, stop.clone(), tape).await,
    };
    accepted.end(&end, failed, tape, &dispatch, &stop).await;
}
