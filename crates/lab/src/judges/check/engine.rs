//! Runs the trials: every scenario with every client, several connections at once, within the budget of time.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rstlab_wire::accept;
use strum::VariantArray as _;
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, timeout_at};

use super::budget::Budget;
use super::cannot_check::{CannotCheck, unconnected};
use super::client::{Client, Manner};
use super::plan::CheckPlan;
use super::probe::Plain;
use super::reasons::{self, Listening, Made};
use super::report::{ClientReport, ScenarioReport};
use super::scenarios::{Scenario, ScenarioCase};
use super::sentence::sentence;
use super::trial::{FailedCall, Model, SocketCall, Trial, TrialOutcome};
use super::verdict::CheckVerdict;
use crate::shared::target::Address;

/// The fewest connections at once: with more, a busy server would find head and body together.
const MIN_AT_ONCE: usize = 4;

/// The most connections at once.
const MAX_AT_ONCE: usize = 32;

/// One connection more at once for each such time that an answer takes: a server that waits for long is not busy.
const EACH: Duration = Duration::from_millis(5);

/// The most connections that are watched for a late reset, not counted above.
const MAX_WATCHED: usize = 192;

/// The most connections of slow scripts, not counted above.
const MAX_SLOW_AT_ONCE: usize = 64;

/// A script that pauses for so long is slow: it has few trials, which run beside the others.
const SLOW: Duration = Duration::from_secs(1);

/// Trials of a slow script with each client; a server that serves one connection at a time has time for one.
const SLOW_TRIALS: usize = 4;

/// After so many time-outs in a scenario, its other trials would only wait as well.
const MAX_TIMEOUTS: u64 = 2;

/// A scenario with one client.
struct Job {
    scenario: usize,
    model: Model,
    cases: Arc<[ScenarioCase]>,
    timeouts: AtomicU64,
}

impl Job {
    fn is_slow(&self, case: usize) -> bool {
        self.cases[case].script.pauses() >= SLOW
    }
}

/// A trial to come: the number of its job and the number of the job's case.
type Turn = (usize, usize);

/// How many connections are made at once to a server.
pub(super) fn at_once(plain: &Plain) -> usize {
    if plain.one_at_a_time {
        return 1;
    }
    let many = plain.first_byte().as_millis() / EACH.as_millis();
    usize::try_from(many)
        .unwrap_or(MAX_AT_ONCE)
        .clamp(MIN_AT_ONCE, MAX_AT_ONCE)
}

/// Runs every scenario with every client, in the order of [`turns`], until the time is up; `progress` is called with the
/// number of trials done and of all trials.
///
/// # Errors
/// A connection can't be made: the server is gone, or this machine is at a limit.
pub(super) async fn run(
    plan: &Arc<CheckPlan>,
    scenarios: &[Scenario],
    plain: &Arc<Plain>,
    budget: Budget,
    kernel: Option<Listening>,
    progress: impl Fn(u64, u64),
) -> Result<Vec<ScenarioReport>, CannotCheck> {
    let jobs = jobs(plan, scenarios);
    let slow_trials = if plain.one_at_a_time { 1 } else { SLOW_TRIALS };
    let turns = turns(&jobs, plan.trials, slow_trials);
    let most = turns.len() as u64;
    let mut runner = Runner::new(plan, plain, &jobs, budget.end());
    let mut done = 0;
    for turn in turns {
        let job = &jobs[turn.0];
        if job.timeouts.load(Ordering::Relaxed) >= MAX_TIMEOUTS {
            continue;
        }
        if Instant::now() >= budget.last_begin() {
            break;
        }
        runner.start(turn, job).await;
        while let Some(finished) = runner.running.try_join_next() {
            done += runner.count(finished, done)?;
            progress(done, most);
        }
    }
    while let Some(finished) = runner.running.join_next().await {
        done += runner.count(finished, done)?;
        progress(done, most);
    }
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
        report.sentence = sentence(&report.clients);
    }
    Ok(reports)
}

fn jobs(plan: &CheckPlan, scenarios: &[Scenario]) -> Vec<Arc<Job>> {
    let mut jobs = Vec::new();
    for (scenario, one) in scenarios.iter().enumerate() {
        let cases: Arc<[ScenarioCase]> = (one.cases)(plan).into();
        if cases.is_empty() {
            continue;
        }
        for model in Model::VARIANTS.iter().copied() {
            jobs.push(Arc::new(Job {
                scenario,
                model,
                cases: Arc::clone(&cases),
                timeouts: AtomicU64::new(0),
            }));
        }
    }
    jobs
}

/// Each case of each job in turn, again and again: `trials` of a job, and at least one of each case. Every case comes once
/// before any comes a second time, so that as few as possible are untried when the time is up. A slow case has
/// `slow_trials`, and the other cases of its job take its place.
fn turns(jobs: &[Arc<Job>], trials: u64, slow_trials: usize) -> Vec<Turn> {
    let trials = usize::try_from(trials).unwrap_or(usize::MAX);
    let places = jobs.iter().map(|job| job.cases.len()).max().unwrap_or(0);
    let mut left: Vec<_> = jobs.iter().map(|job| trials.max(job.cases.len())).collect();
    let mut turns = Vec::new();
    for lap in 0..trials {
        let before = turns.len();
        for case in 0..places {
            for (number, job) in jobs.iter().enumerate() {
                let is_one = case < job.cases.len() && left[number] > 0;
                if is_one && (lap < slow_trials || !job.is_slow(case)) {
                    left[number] -= 1;
                    turns.push((number, case));
                }
            }
        }
        if turns.len() == before {
            break;
        }
    }
    turns
}

/// A trial's turn and its result; `None` if its time was up.
type Finished = (Turn, Option<Result<Trial, io::Error>>);

struct Runner {
    plan: Arc<CheckPlan>,
    plain: Arc<Plain>,
    active: Arc<Semaphore>,
    watched: Arc<Semaphore>,
    slow: Arc<Semaphore>,
    /// When trials that have not ended are cut short.
    end: Instant,
    running: JoinSet<Finished>,
    /// The connections of each job.
    made: Vec<Vec<Made>>,
    /// The report of each job.
    clients: Vec<ClientReport>,
}

impl Runner {
    fn new(plan: &Arc<CheckPlan>, plain: &Arc<Plain>, jobs: &[Arc<Job>], end: Instant) -> Self {
        let client = |job: &Arc<Job>| {
            let labels = job.cases.iter().map(|case| case.label.clone());
            ClientReport::new(job.model, labels)
        };
        let quarter = accept::capacity(2, 0) / 4;
        let slots = |most: usize, room: usize| Arc::new(Semaphore::new(most.min(room).max(1)));
        Self {
            plan: Arc::clone(plan),
            plain: Arc::clone(plain),
            active: slots(at_once(plain), usize::MAX),
            watched: slots(MAX_WATCHED, 3 * quarter),
            slow: slots(MAX_SLOW_AT_ONCE, quarter),
            end,
            running: JoinSet::new(),
            made: vec![Vec::new(); jobs.len()],
            clients: jobs.iter().map(client).collect(),
        }
    }

    /// Starts a trial once there is a slot for it. A slow trial waits for its slot in a task of its own, so that the other
    /// trials don't wait with it.
    async fn start(&mut self, turn: Turn, job: &Arc<Job>) {
        let one_at_a_time = self.plain.one_at_a_time;
        let (slots, now) = match job.is_slow(turn.1) && !one_at_a_time {
            true => (&self.slow, None),
            false => (
                &self.active,
                Some(Arc::clone(&self.active).acquire_owned().await),
            ),
        };
        let (slots, watched, end) = (Arc::clone(slots), Arc::clone(&self.watched), self.end);
        let (plan, plain, job) = (
            Arc::clone(&self.plan),
            Arc::clone(&self.plain),
            Arc::clone(job),
        );
        self.running.spawn(async move {
            let manner = Manner {
                model: job.model,
                late: true,
                timeout: plan.timeout,
            };
            let script = &job.cases[turn.1].script;
            let trial = async {
                // The semaphores are never closed.
                let mut slot = match now {
                    Some(slot) => Some(slot),
                    None => Some(slots.acquire_owned().await),
                };
                let mut client = match Client::connect(&plan.target.address, script, manner).await {
                    Ok(client) => client,
                    Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                        return Ok(late(&error));
                    }
                    Err(error) => return Err(error),
                };
                client.play().await;
                if client.is_left_open() {
                    // The place to watch comes first, so that no more connections wait for one than there are slots.
                    let _watched = watched.acquire().await;
                    if !one_at_a_time {
                        drop(slot.take());
                    }
                    client.watch_longer().await;
                }
                drop(slot);
                Ok(client.trial(Some(&plain)))
            };
            let trial = timeout_at(end, trial).await.ok();
            if matches!(&trial, Some(Ok(trial)) if trial.outcome == TrialOutcome::Timeout) {
                job.timeouts.fetch_add(1, Ordering::Relaxed);
            }
            (turn, trial)
        });
    }

    /// Counts a trial and returns 1, or 0 if its time was up. `made` is how many trials there were before.
    fn count(
        &mut self,
        finished: Result<Finished, JoinError>,
        made: u64,
    ) -> Result<u64, CannotCheck> {
        match finished {
            Ok(((job, case), Some(Ok(trial)))) => {
                self.made[job].extend(trial.made);
                self.clients[job].add(case, trial);
                Ok(1)
            }
            Ok((_, Some(Err(error)))) => {
                let address = &self.plan.target.address;
                Err(unconnected(address, error, Some(made)))
            }
            Ok((_, None)) => Ok(0),
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}

/// The trial of a connection that was not made within the limit of a trial.
fn late(error: &io::Error) -> Trial {
    Trial {
        failure: Some(FailedCall {
            call: SocketCall::Connect,
            errno: error.raw_os_error().unwrap_or(0),
            after: Duration::ZERO,
        }),
        ..Trial::new(TrialOutcome::Timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::super::scenarios::SCENARIOS;
    use super::*;
    use crate::shared::target::Target;

    /// How often each case of the scenario has its turn, with one client.
    fn trials(plan: &CheckPlan, name: &str) -> Vec<usize> {
        let one = SCENARIOS.into_iter().find(|one| one.name == name).unwrap();
        let jobs = jobs(plan, &[one]);
        let turns = turns(&jobs, plan.trials, SLOW_TRIALS);
        let of = |case| turns.iter().filter(|turn| **turn == (0, case)).count();
        (0..jobs[0].cases.len()).map(of).collect()
    }

    #[test]
    fn every_combination_is_tried_and_a_slow_one_takes_no_trials_from_others() {
        let target = Target::from(std::net::SocketAddr::from(([127, 0, 0, 1], 80)));
        let mut plan = CheckPlan::new(target);
        assert_eq!(trials(&plan, "body-large"), [17, 17, 16]);
        assert_eq!(trials(&plan, "body-trickles"), [4]);
        plan.gaps.push(Duration::from_secs(1));
        assert_eq!(trials(&plan, "body-after-gap"), [7, 7, 7, 4, 7, 7, 7, 4]);
        plan.trials = 1;
        assert_eq!(trials(&plan, "body-after-gap"), [1; 8]);
        plan.gaps = vec![Duration::from_secs(1)];
        plan.trials = 50;
        assert_eq!(trials(&plan, "body-after-gap"), [4, 4]);
    }

    #[test]
    fn no_combination_has_a_second_turn_before_each_has_had_one() {
        let target = Target::from(std::net::SocketAddr::from(([127, 0, 0, 1], 80)));
        let plan = CheckPlan::new(target);
        let jobs = jobs(&plan, &SCENARIOS);
        let mut turns = turns(&jobs, plan.trials, SLOW_TRIALS);
        let cases = jobs.iter().map(|job| job.cases.len()).sum();
        turns.truncate(cases);
        turns.sort_unstable();
        turns.dedup();
        assert_eq!(turns.len(), cases);
    }
}
