//! `rstlab check --through`: does a proxy hand on an answer that comes before the upload has ended?
//!
//! The upstream is ours: it reads a request's head, answers 401 and closes (rstlab-upstream's mode `lazy`), so that
//! the rest of the upload is answered with a RST. The answer lies in the proxy's receive queue every time; a proxy
//! that gives up on the failed write does not read it.

mod report;
mod text;

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use http::StatusCode;
use rstlab_upstream::Mode;
use rstlab_witness::Witness;
use tokio::net::TcpListener;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

pub use report::{Report, SizeReport, Untried};

use super::args::{Config, Files};
use super::client::{Client, Manner};
use super::outcome::{Model, Outcome, Trial};
use super::script::{Head, Script, Step};
use super::unconnected::unconnected;
use super::{CannotCheck, Plan};
use crate::output::{advance, print, progress_bar};

/// Time for each 100 clients of all sizes: a proxy that answers needs a fraction of it.
const TIME: Duration = Duration::from_secs(120);

/// After so many time-outs in a row the other clients of a size would only wait as well.
const MOST_TIMEOUTS: u64 = 3;

/// Least limit of an upload.
const LEAST_LIMIT: Duration = Duration::from_secs(1);

/// The upstream's answer: its status, and a length that no other answer with this status is likely to have.
const STATUS: StatusCode = StatusCode::UNAUTHORIZED;
const ANSWER_BYTES: u64 = 401;

/// Why a proxy can't be checked.
#[derive(Debug, thiserror::Error)]
pub enum CannotTest {
    /// No HTTP server is there.
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
        /// What came in its place.
        got: String,
        /// The request's path.
        path: String,
    },
    /// The upstream's listener failed.
    #[error("the upstream can no longer accept connections")]
    Upstream(#[source] io::Error),
}

impl Plan {
    /// 100 clients of each size, for [`run`].
    pub fn through(target: super::Target) -> Self {
        Self {
            body_sizes: vec![22, 100_000, 1_000_000, 5_000_000],
            trials: 100,
            ..Self::new(target)
        }
    }
}

/// Checks the proxy, prints the report, writes the files.
///
/// # Errors
/// Nothing could be checked, or a file can't be written.
pub(super) async fn check(
    config: &Config,
    upstream: &str,
    files: Files,
) -> anyhow::Result<ExitCode> {
    let plan = config.plan().await?;
    let listener = TcpListener::bind(upstream).await;
    let listener = listener.with_context(|| format!("cannot listen on {upstream}"))?;
    let bar = progress_bar(config.quiet, "{bar:40} {pos}/{len} clients, {elapsed}");
    let report = run(&plan, listener, |done, all| advance(&bar, done, all)).await;
    bar.finish_and_clear();
    let report = report?;
    let url = config.url.to_string();
    files.json.write_json(&report)?;
    files.markdown.write(|| Ok(text::markdown(&url, &report)))?;
    if !config.quiet {
        print([text::text(&url, &report)])?;
    }
    Ok(if report.all_answered() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Plays the upstream on `listener`, and the clients of the proxy, which forwards to it; `progress` is told how many
/// clients of how many are done.
///
/// # Errors
/// The proxy does not answer with HTTP/1, or does not forward to the upstream.
pub async fn run(
    plan: &Plan,
    listener: TcpListener,
    progress: impl Fn(u64, u64),
) -> Result<Report, CannotTest> {
    let address = listener.local_addr().map_err(CannotTest::Upstream)?;
    let config = rstlab_upstream::Config {
        mode: Mode::Lazy,
        status: STATUS,
        response_bytes: ANSWER_BYTES,
        ..rstlab_upstream::Config::default()
    };
    let stop = CancellationToken::new();
    // Ends when this function does, whatever the reason.
    let _stopped = stop.clone().drop_guard();
    let upstream = rstlab_upstream::run(listener, config, Witness::default(), stop);
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
    plan: &Plan,
    upstream: &str,
    progress: impl Fn(u64, u64),
) -> Result<Report, CannotTest> {
    let start = Instant::now();
    let first = upload(plan, 0, None).await?;
    if !is_the_answer(&first) {
        return Err(CannotTest::NotForwarded {
            proxy: plan.target.address.to_string(),
            upstream: upstream.to_owned(),
            got: report::ending(&first),
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
    // A client of each size in turn: all have as many when the time is up.
    let mut late = vec![0; sizes.len()];
    for _ in 0..plan.trials {
        for (size, late) in sizes.iter_mut().zip(&mut late) {
            done += 1;
            if *late >= MOST_TIMEOUTS {
                size.skip(Untried::TimeOuts);
                continue;
            }
            let trial = upload(plan, size.body_bytes, Some(made));
            match timeout_at(end, trial).await {
                // Cut short, it says nothing.
                Err(_) => size.skip(Untried::TimeUp),
                Ok(trial) => {
                    let trial = trial?;
                    let is_late = trial.outcome == Outcome::Timeout;
                    *late = if is_late { *late + 1 } else { 0 };
                    size.add(is_the_answer(&trial), &report::ending(&trial));
                    made += 1;
                }
            }
            progress(done, all);
        }
    }
    Ok(Report {
        address: plan.target.address.to_string(),
        request: format!("{} {}", plan.method, plan.target.path),
        upstream: upstream.to_owned(),
        sizes,
        seconds: start.elapsed().as_secs_f64(),
    })
}

/// The limit of all of it; a client of each size has time to fail.
fn time(plan: &Plan) -> Duration {
    let sizes = u32::try_from(plan.body_sizes.len()).unwrap_or(u32::MAX);
    // To connect and to upload.
    let each = limit(plan).saturating_mul(2);
    let time = TIME.max(each.saturating_mul(sizes.saturating_add(1)));
    let hundreds = u32::try_from(plan.trials.div_ceil(100)).unwrap_or(u32::MAX);
    // A year is for ever.
    time.saturating_mul(hundreds)
        .min(Duration::from_secs(365 * 24 * 60 * 60))
}

/// The limit of an upload, and of connecting before it.
fn limit(plan: &Plan) -> Duration {
    plan.timeout.max(LEAST_LIMIT)
}

fn is_the_answer(trial: &Trial) -> bool {
    let whole = matches!(
        trial.outcome,
        Outcome::WholeThenFin | Outcome::WholeThenReset
    );
    whole && trial.status == Some(STATUS.as_u16()) && trial.body_bytes == ANSWER_BYTES
}

/// A usual client: it sends head and body, and reads on if sending fails. `made` is how many there were before.
async fn upload(plan: &Plan, bytes: u64, made: Option<u64>) -> Result<Trial, CannotCheck> {
    let steps = vec![Head::new(plan).length(bytes).send(), Step::Fill(bytes)];
    let script = Script::new(plan, steps);
    let manner = Manner {
        model: Model::ReadsOn,
        late: false,
        timeout: limit(plan),
    };
    let address = &plan.target.address;
    let client = Client::connect(address, &script, manner).await;
    let mut client = client.map_err(|source| unconnected(address, source, made))?;
    client.play().await;
    Ok(client.trial(None))
}
