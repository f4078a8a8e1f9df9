//! Runs the trials: every scenario with every client, several connections at once, within the budget of time.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rstlab_wire::accept;
use strum::VariantArray as _;
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use super::budget::Budget;
use super::cannot_check::{CannotCheck, is_refused, unconnected};
use super::client::{Client, Manner};
use super::outages::{self, Outages, Refusals};
use super::plan::CheckPlan;
use super::probe::Plain;
use super::reasons::{self, Listening, Made};
use super::report::{ClientReport, ScenarioReport};
use super::scenarios::{Conditions, Scenario, ScenarioCase};
use super::script::Script;
use super::sentence::sentence;
use super::trial::{ConnectionUse, FailedCall, Model, SocketCall, Trial, TrialOutcome};
use super::turned_away::{MIN_TURNED_AWAY, TurnedAway};
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

/// A scenario with one client that uses its connections in one way.
struct Job {
    scenario: usize,
    model: Model,
    connection: ConnectionUse,
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
    let jobs = jobs(plan, scenarios, unread_bytes);
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
    runner.settle(Instant::now() + SETTLED * 2);
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
        report.sentence = sentence(&report.clients);
    }
    Ok((reports, runner.refusals.report(runner.left_out)))
}

fn jobs(plan: &CheckPlan, scenarios: &[Scenario], unread_bytes: Option<u64>) -> Vec<Arc<Job>> {
    let mut jobs = Vec::new();
    for (scenario, one) in scenarios.iter().enumerate() {
        for connection in one.connections.iter().copied() {
            let conditions = Conditions {
                plan,
                connection,
                unread_bytes,
            };
            let cases: Arc<[ScenarioCase]> = (one.cases)(&conditions).into();
            if cases.is_empty() {
                continue;
            }
            for model in Model::VARIANTS.iter().copied() {
                jobs.push(Arc::new(Job {
                    scenario,
                    model,
                    connection,
                    cases: Arc::clone(&cases),
                    timeouts: AtomicU64::new(0),
                }));
            }
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

/// A lost response counts only after so long: until then a refused connection may show that the server ended.
const SETTLED: Duration = outages::BEFORE.saturating_mul(2);

/// Time between two attempts to connect to a server that refuses connections.
pub(super) const RETRY_EVERY: Duration = Duration::from_millis(20);

/// A trial that has ended.
struct Finished {
    turn: Turn,
    begun: Instant,
    ended: Instant,
    /// `None` if its time was up.
    result: Option<Result<Trial, io::Error>>,
}

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
    refusals: Arc<Refusals>,
    /// Trials that lost their response and do not count yet, in the order in which they ended.
    doubtful: VecDeque<(Finished, Trial)>,
    /// Trials that lost their response because the server ended.
    left_out: u64,
    turned_away: TurnedAway,
}

impl Runner {
    fn new(plan: &Arc<CheckPlan>, plain: &Arc<Plain>, jobs: &[Arc<Job>], end: Instant) -> Self {
        let client = |job: &Arc<Job>| {
            let labels = job.cases.iter().map(|case| case.label.clone());
            ClientReport::new(job.model, job.connection, labels)
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
            refusals: Arc::default(),
            doubtful: VecDeque::new(),
            left_out: 0,
            turned_away: TurnedAway::default(),
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
        let refusals = Arc::clone(&self.refusals);
        self.running.spawn(async move {
            let begun = Instant::now();
            let manner = Manner {
                model: job.model,
                timeout: plan.timeout,
            };
            let script = &job.cases[turn.1].script;
            let trial = async {
                // The semaphores are never closed.
                let mut slot = match now {
                    Some(slot) => Some(slot),
                    None => Some(slots.acquire_owned().await),
                };
                let connecting = connect(&plan, script, manner, &refusals);
                let mut client = match connecting.await {
                    Ok(client) => client,
                    Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                        return Ok(late(&error));
                    }
                    Err(error) => return Err(error),
                };
                client.play().await;
                // A server that serves one at a time must not wait for a client that only watches.
                if client.is_left_open() || (client.may_be_reset() && !one_at_a_time) {
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
            Finished {
                turn,
                begun,
                ended: Instant::now(),
                result: trial,
            }
        });
    }

    /// Counts a trial and returns 1, or 0 if its time was up. `made` is how many trials there were before.
    fn count(
        &mut self,
        finished: Result<Finished, JoinError>,
        made: u64,
    ) -> Result<u64, CannotCheck> {
        let mut finished = match finished {
            Ok(finished) => finished,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        self.settle(Instant::now());
        match finished.result.take() {
            Some(Ok(trial)) => {
                self.turned_away.count(&trial);
                self.turned_away.verdict(&self.plan, MIN_TURNED_AWAY)?;
                match trial.outcome.is_lost() {
                    true => self.doubtful.push_back((finished, trial)),
                    false => self.add(finished.turn, trial),
                }
                Ok(1)
            }
            Some(Err(error)) => {
                let address = &self.plan.target.address;
                Err(unconnected(address, error, Some(made)))
            }
            None => Ok(0),
        }
    }

    fn add(&mut self, (job, case): Turn, trial: Trial) {
        self.made[job].extend(trial.made);
        self.clients[job].add(case, trial);
    }

    /// Counts the lost responses of which it is known by now whether the server ended.
    fn settle(&mut self, now: Instant) {
        while let Some((finished, trial)) = self
            .doubtful
            .pop_front_if(|(one, _)| one.ended + SETTLED < now)
        {
            match self.refusals.are_around(finished.begun, finished.ended) {
                true => self.left_out += 1,
                false => self.add(finished.turn, trial),
            }
        }
    }
}

/// Connects. A server that refuses connections may be about to be there again: it has the time of `--retry`.
async fn connect<'a>(
    plan: &CheckPlan,
    script: &'a Script,
    manner: Manner,
    refusals: &Refusals,
) -> io::Result<Client<'a>> {
    let begun = Instant::now();
    loop {
        match Client::connect(&plan.target.address, script, manner).await {
            Err(error) if is_refused(&error) => {
                refusals.note(Instant::now());
                if begun.elapsed() >= plan.retry {
                    return Err(error);
                }
                sleep(RETRY_EVERY).await;
            }
            connected => return connected,
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
        let jobs = jobs(plan, &[one], None);
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
        let jobs = jobs(&plan, &SCENARIOS, None);
        let mut turns = turns(&jobs, plan.trials, SLOW_TRIALS);
        let cases = jobs.iter().map(|job| job.cases.len()).sum();
        turns.truncate(cases);
        turns.sort_unstable();
        turns.dedup();
        assert_eq!(turns.len(), cases);
    }
}
