//! Plays the upstream and the clients of a proxy.
//!
//! The upstream reads a request's head, answers 401 and closes (rstlab-upstream's mode `lazy`), so that the rest of the
//! upload is answered with a RST. The answer is in the proxy's receive queue every time; a proxy that gives up on the
//! failed write does not read it.

use std::io;
use std::time::Duration;

use http::StatusCode;
use rstlab_upstream::Mode;
use rstlab_witness::{Takers, Witness};
use tokio::net::TcpListener;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::report::{SizeReport, ThroughReport, Untried, ending};
use crate::judges::check::cannot_check::{CannotCheck, unconnected};
use crate::judges::check::client::{Client, Manner};
use crate::judges::check::plan::CheckPlan;
use crate::judges::check::script::{RequestHead, Script, Step};
use crate::judges::check::trial::{Trial, TrialOutcome};

/// Time for each 100 clients of all sizes: a proxy that answers needs a fraction of it.
const TIME: Duration = Duration::from_secs(120);

/// After so many time-outs in a row, the other clients of a size would only wait as well.
const MAX_TIMEOUTS: u64 = 3;

/// The shortest limit of an upload.
const MIN_LIMIT: Duration = Duration::from_secs(1);

/// The upstream's answer: its status, and a length that no other answer with this status is likely to have.
const STATUS: StatusCode = StatusCode::UNAUTHORIZED;
const ANSWER_BYTES: u64 = 401;

/// Why a proxy can't be checked.
#[derive(Debug, thiserror::Error)]
pub enum CannotTest {
    /// There is no HTTP server.
    #[error(transparent)]
    Check(#[from] CannotCheck),
    /// A request without a body did not get the upstream's answer.
    #[error(
        "{proxy} does not forward to {upstream}: a request without a body gets {got}, not the 401 of the upstream \
         there. Is it the proxy's upstream? Does the proxy pass {path} on?"
    )]
    NotForwarded {
        /// The proxy.
        proxy: String,
        /// Where the upstream listens.
        upstream: String,
        /// The answer that came instead.
        got: String,
        /// The request's path.
        path: String,
    },
    /// The upstream's listener failed.
    #[error("the upstream can no longer accept connections")]
    Upstream(#[source] io::Error),
}

/// Plays the upstream on `listener`, and the clients of the proxy that forwards to it; `progress` is called with the
/// number of clients done and of all clients.
///
/// # Errors
/// The proxy does not answer with HTTP/1, or does not forward to the upstream.
pub async fn run(
    plan: &CheckPlan,
    listener: TcpListener,
    progress: impl Fn(u64, u64),
) -> Result<ThroughReport, CannotTest> {
    let address = listener.local_addr().map_err(CannotTest::Upstream)?;
    let config = rstlab_upstream::UpstreamConfig {
        mode: Mode::Lazy,
        status: STATUS,
        response_bytes: ANSWER_BYTES,
        ..rstlab_upstream::UpstreamConfig::default()
    };
    let stop = CancellationToken::new();
    // Stops the upstream when this function returns, whatever the reason.
    let _stopped = stop.clone().drop_guard();
    let upstream = rstlab_upstream::run(
        listener,
        config.into(),
        Takers::default(),
        Witness::default(),
        stop,
    );
    let upstream = tokio::spawn(upstream);
    let address = address.to_string();
    let clients = clients(plan, &address, progress);
    tokio::select! {
        report = clients => report,
        ended = upstream => Err(CannotTest::Upstream(match ended {
            Ok(Ok(_)) => io::ErrorKind::ConnectionAborted.into(),
            Ok(Err(error)) => error,
            Err(error) => error.into(),
        })),
    }
}

async fn clients(
    plan: &CheckPlan,
    upstream: &str,
    progress: impl Fn(u64, u64),
) -> Result<ThroughReport, CannotTest> {
    let start = Instant::now();
    let first = upload(plan, 0, None).await?;
    if !is_the_answer(&first) {
        return Err(CannotTest::NotForwarded {
            proxy: plan.target.address.to_string(),
            upstream: upstream.to_owned(),
            got: ending(&first),
            path: plan.target.path.clone(),
        });
    }
    let all = plan.trials * plan.body_sizes.len() as u64;
    let end = start + time(plan);
    let (mut done, mut made) = (0, 0);
    let mut sizes: Vec<_> = plan
        .body_sizes
        .iter()
        .map(|bytes| SizeReport::new(*bytes))
        .collect();
    // A client of each size in turn: all sizes have as many when the time is up.
    let mut late = vec![0; sizes.len()];
    for _ in 0..plan.trials {
        for (size, late) in sizes.iter_mut().zip(&mut late) {
            done += 1;
            if *late >= MAX_TIMEOUTS {
                size.skip(Untried::TimeOuts);
                continue;
            }
            let trial = upload(plan, size.body_bytes, Some(made));
            match timeout_at(end, trial).await {
                // A client that was cut short says nothing about the proxy.
                Err(_) => size.skip(Untried::TimeUp),
                Ok(trial) => {
                    let trial = trial?;
                    let is_late = trial.outcome == TrialOutcome::Timeout;
                    *late = if is_late { *late + 1 } else { 0 };
                    size.add(is_the_answer(&trial), &ending(&trial));
                    made += 1;
                }
            }
            progress(done, all);
        }
    }
    Ok(ThroughReport {
        address: plan.target.address.to_string(),
        request: format!("{} {}", plan.method, plan.target.path),
        upstream: upstream.to_owned(),
        sizes,
        seconds: start.elapsed().as_secs_f64(),
    })
}

/// The limit of the whole check; a client of each size has time to fail.
fn time(plan: &CheckPlan) -> Duration {
    let sizes = u32::try_from(plan.body_sizes.len()).unwrap_or(u32::MAX);
    // Twice: once to connect, once to upload.
    let each = limit(plan).saturating_mul(2);
    let time = TIME.max(each.saturating_mul(sizes.saturating_add(1)));
    let hundreds = u32::try_from(plan.trials.div_ceil(100)).unwrap_or(u32::MAX);
    // The limit of a year keeps the deadline from overflowing.
    time.saturating_mul(hundreds)
        .min(Duration::from_secs(365 * 24 * 60 * 60))
}

/// The limit of an upload, and of connecting before it.
fn limit(plan: &CheckPlan) -> Duration {
    plan.timeout.max(MIN_LIMIT)
}

fn is_the_answer(trial: &Trial) -> bool {
    trial.outcome.is_whole()
        && trial.status == Some(STATUS.as_u16())
        && trial.body_bytes == ANSWER_BYTES
}

/// A usual client: it sends head and body, and reads on if sending fails. `made` is how many clients there were before.
async fn upload(plan: &CheckPlan, bytes: u64, made: Option<u64>) -> Result<Trial, CannotCheck> {
    let steps = vec![
        RequestHead::new(plan).length(bytes).send(),
        Step::Fill(bytes),
    ];
    let script = Script::new(plan, steps);
    let address = &plan.target.address;
    let client = Client::connect(address, &script, Manner::ordinary(limit(plan))).await;
    let mut client = client.map_err(|source| unconnected(address, source, made))?;
    client.play().await;
    Ok(client.trial(None))
}
