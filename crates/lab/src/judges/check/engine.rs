//! Runs the trials: every scenario with every client, several connections at once, within the budget of time.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::budget::Budget;
use super::cannot_check::CannotCheck;
use super::jobs::{jobs, turns};
use super::outages::Outages;
use super::plan::CheckPlan;
use super::probe::Plain;
use super::reasons::{self, Listening};
use super::report::ScenarioReport;
use super::runner::Runner;
use super::scenarios::Scenario;
use super::sentence::sentence;
use super::verdict::CheckVerdict;
use crate::shared::target::Address;

/// After so many time-outs in a scenario, its other trials would only wait as well.
const MAX_TIMEOUTS: u64 = 2;

/// What to try, and until when.
#[derive(Debug, Clone, Copy)]
pub(super) struct TrialOrder<'a> {
    pub(super) plan: &'a Arc<CheckPlan>,
    pub(super) scenarios: &'a [Scenario],
    pub(super) plain: &'a Arc<Plain>,
    /// The smallest number of bytes after an answer that the server was seen not to read.
    pub(super) unread_bytes: Option<u64>,
    pub(super) budget: Budget,
    /// Ends the trials at once; those that have ended count.
    pub(super) stop: &'a CancellationToken,
}

/// Runs every scenario with every client, in the order of [`turns`], until the time is up; `progress` is called with the
/// number of trials done and of all trials.
///
/// # Errors
/// A connection can't be made: the server is gone, or this machine is at a limit. Or the server turns most requests away.
pub(super) async fn run(
    order: TrialOrder<'_>,
    kernel: Option<Listening>,
    progress: impl Fn(u64, u64),
) -> Result<(Vec<ScenarioReport>, Outages), CannotCheck> {
    let TrialOrder {
        plan,
        scenarios,
        plain,
        unread_bytes,
        budget,
        stop,
    } = order;
    let jobs = jobs(plan, scenarios, unread_bytes, plain.one_at_a_time);
    let turns = turns(&jobs, plan.trials, plain.one_at_a_time);
    let most = turns.len() as u64;
    let mut runner = Runner::new(plan, plain, &jobs, budget.end());
    let mut done = 0;
    for turn in turns {
        let job = &jobs[turn.0];
        if job.timeouts.load(Ordering::Relaxed) >= MAX_TIMEOUTS {
            continue;
        }
        let requests = job.cases[turn.1].script.responses;
        let paced = tokio::select! {
            paced = timeout_at(budget.last_begin(), plan.pace.wait(requests)) => paced.is_ok(),
            () = stop.cancelled() => false,
        };
        if !paced || Instant::now() >= budget.last_begin() {
            break;
        }
        tokio::select! {
            () = runner.start(turn, job) => {}
            () = stop.cancelled() => break,
        }
        while let Some(finished) = runner.running.try_join_next() {
            done += runner.count(finished, done)?;
            progress(done, most);
        }
    }
    loop {
        let finished = tokio::select! {
            finished = runner.running.join_next() => finished,
            () = stop.cancelled() => {
                runner.running.shutdown().await;
                None
            }
        };
        let Some(finished) = finished else { break };
        done += runner.count(finished, done)?;
        progress(done, most);
    }
    runner.settle_all();
    runner.turned_away.verdict(plan, 1)?;
    let resets = match kernel {
        Some(kernel) => kernel.finish().await,
        None => Vec::new(),
    };
    let reasons = reasons::of_groups(resets, &runner.made);
    let mut reports: Vec<_> = scenarios.iter().map(ScenarioReport::new).collect();
    let unix = matches!(plan.target.address, Address::Unix(_));
    for ((job, mut client), reasons) in jobs.iter().zip(runner.clients).zip(reasons) {
        client.reasons = reasons;
        client.judge(unix);
        reports[job.scenario].clients.push(client);
    }
    for report in &mut reports {
        report.verdict = CheckVerdict::worst(report.clients.iter().map(|client| client.verdict));
        report.severity = report.worst_loss();
        report.sentence = sentence(&report.clients);
    }
    Ok((reports, runner.refusals.report(runner.left_out)))
}
