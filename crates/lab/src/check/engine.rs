use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rstlab_wire::accept;
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, timeout_at};

use super::Plan;
use super::budget::Budget;
use super::client::{Client, Manner};
use super::outcome::{Failure, Model, Outcome, Trial};
use super::probe::{CannotCheck, Plain};
use super::reasons::{self, Listening};
use super::report::{ScenarioReport, Tally};
use super::scenarios::{Case, Scenario};
use super::sentence::sentence;
use super::target::Address;
use super::unconnected::unconnected;
use super::verdict::Verdict;

/// Fewest connections at once: more would only make the body catch up with the head while the server is busy.
const AT_ONCE: usize = 4;

/// Most, and the time that one of them takes: a server that thinks for long is not busy with us.
const MOST_AT_ONCE: usize = 32;
const EACH: Duration = Duration::from_millis(5);

/// Connections that are watched for a late reset, beside those.
const WATCHED: usize = 192;

/// Connections of slow scripts, beside those.
const SLOW_AT_ONCE: usize = 64;

/// A script that pauses for so long is slow: a few trials of it, beside the others.
const SLOW: Duration = Duration::from_secs(1);

/// Trials of a slow script with each client; a server that serves one at a time has time for one.
const SLOW_TRIALS: usize = 4;

/// After so many time-outs in a scenario, its other trials would only wait as well.
const MOST_TIMEOUTS: u64 = 2;

/// A scenario with one client.
struct Job {
    scenario: usize,
    model: Model,
    cases: Arc<[Case]>,
    timeouts: AtomicU64,
}

impl Job {
    fn is_slow(&self, case: usize) -> bool {
        self.cases[case].script.pauses() >= SLOW
    }
}

/// A trial to come: the number of its job, and of the job's case.
type Turn = (usize, usize);

/// Connections at once to a server.
pub(super) fn at_once(plain: &Plain) -> usize {
    if plain.one_at_a_time {
        return 1;
    }
    let many = plain.first_byte().as_millis() / EACH.as_millis();
    usize::try_from(many)
        .unwrap_or(MOST_AT_ONCE)
        .clamp(AT_ONCE, MOST_AT_ONCE)
}

/// Runs every scenario with every client, in the order of [`turns`], as far as the time goes; `progress` is told
/// how many trials of how many are done.
///
/// # Errors
/// A connection can't be made: the server is gone, or we have no room for it.
pub(super) async fn run(
    plan: &Arc<Plan>,
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
        if job.timeouts.load(Ordering::Relaxed) >= MOST_TIMEOUTS {
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
    let made: Vec<_> = runner.tallies.iter_mut().map(Tally::made).collect();
    let resets = match kernel {
        Some(kernel) => kernel.finish().await,
        None => Vec::new(),
    };
    for (tally, reasons) in runner
        .tallies
        .iter_mut()
        .zip(reasons::of_groups(resets, &made))
    {
        tally.reasons(reasons);
    }
    Ok(reports(scenarios, &jobs, runner.tallies, plan))
}

fn jobs(plan: &Plan, scenarios: &[Scenario]) -> Vec<Arc<Job>> {
    let mut jobs = Vec::new();
    for (scenario, one) in scenarios.iter().enumerate() {
        let cases: Arc<[Case]> = (one.cases)(plan).into();
        if cases.is_empty() {
            continue;
        }
        for model in Model::ALL {
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

/// Each case of each job in turn, again and again: so many trials of a job, and one of each case at least. All
/// cases come before the first one comes again, so that as few as can be are untried when the time is up; a slow
/// one comes so often only, and its job's others in its place.
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

fn reports(
    scenarios: &[Scenario],
    jobs: &[Arc<Job>],
    tallies: Vec<Tally>,
    plan: &Plan,
) -> Vec<ScenarioReport> {
    let unix = matches!(plan.target.address, Address::Unix(_));
    let mut reports: Vec<ScenarioReport> = scenarios
        .iter()
        .map(|scenario| ScenarioReport {
            name: scenario.name,
            about: scenario.about,
            rule: scenario.rule,
            verdict: Verdict::Pass,
            sentence: String::new(),
            clients: Vec::new(),
        })
        .collect();
    for (job, tally) in jobs.iter().zip(tallies) {
        reports[job.scenario].clients.push(tally.report(unix));
    }
    for report in &mut reports {
        let verdicts = report.clients.iter().map(|client| client.verdict);
        report.verdict = verdicts.max().unwrap_or(Verdict::CannotTell);
        report.sentence = sentence(&report.clients);
    }
    reports
}

/// A trial's turn, and what came of it; `None` if its time was up.
type Finished = (Turn, Option<Result<Trial, io::Error>>);

struct Runner {
    plan: Arc<Plan>,
    plain: Arc<Plain>,
    active: Arc<Semaphore>,
    watched: Arc<Semaphore>,
    slow: Arc<Semaphore>,
    /// Trials that have not ended then are cut short.
    end: Instant,
    running: JoinSet<Finished>,
    tallies: Vec<Tally>,
}

impl Runner {
    fn new(plan: &Arc<Plan>, plain: &Arc<Plain>, jobs: &[Arc<Job>], end: Instant) -> Self {
        let labels = |job: &Arc<Job>| {
            let labels: Vec<String> = job.cases.iter().map(|case| case.label.clone()).collect();
            Tally::new(job.model, labels)
        };
        let quarter = accept::capacity(2, 0) / 4;
        let slots = |most: usize, room: usize| Arc::new(Semaphore::new(most.min(room).max(1)));
        Self {
            plan: Arc::clone(plan),
            plain: Arc::clone(plain),
            active: slots(at_once(plain), usize::MAX),
            watched: slots(WATCHED, 3 * quarter),
            slow: slots(SLOW_AT_ONCE, quarter),
            end,
            running: JoinSet::new(),
            tallies: jobs.iter().map(labels).collect(),
        }
    }

    /// Starts a trial, once there is a slot for it. A slow one waits for its own, so that it keeps none of the
    /// others waiting.
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
                    // First a place to watch, so that no more wait for one than there are slots.
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
            if matches!(&trial, Some(Ok(trial)) if trial.outcome == Outcome::Timeout) {
                job.timeouts.fetch_add(1, Ordering::Relaxed);
            }
            (turn, trial)
        });
    }

    /// Counts a trial, if it was one; returns how many. `made` is how many there were before.
    fn count(
        &mut self,
        finished: Result<Finished, JoinError>,
        made: u64,
    ) -> Result<u64, CannotCheck> {
        match finished {
            Ok(((job, case), Some(Ok(trial)))) => {
                self.tallies[job].add(case, trial);
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

/// A connection that did not come about within the limit of a trial.
fn late(error: &io::Error) -> Trial {
    Trial {
        outcome: Outcome::Timeout,
        status: None,
        body_bytes: 0,
        lost_bytes: 0,
        fits: false,
        still_open: false,
        failure: Some(Failure {
            call: "connect()",
            errno: error.raw_os_error().unwrap_or(0),
            after: Duration::ZERO,
        }),
        bad: None,
        made: None,
        first_byte: None,
        beginning: Box::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::scenarios::ALL;
    use super::super::target::Target;
    use super::*;

    /// How often each case of the scenario has its turn, with one client.
    fn trials(plan: &Plan, name: &str) -> Vec<usize> {
        let one = ALL.into_iter().find(|one| one.name == name).unwrap();
        let jobs = jobs(plan, &[one]);
        let turns = turns(&jobs, plan.trials, SLOW_TRIALS);
        let of = |case| turns.iter().filter(|turn| **turn == (0, case)).count();
        (0..jobs[0].cases.len()).map(of).collect()
    }

    #[test]
    fn every_combination_is_tried_and_a_slow_one_makes_only_itself_rare() {
        let target = Target::from(std::net::SocketAddr::from(([127, 0, 0, 1], 80)));
        let mut plan = Plan::new(target);
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
    fn no_combination_has_a_second_turn_before_each_had_one() {
        let target = Target::from(std::net::SocketAddr::from(([127, 0, 0, 1], 80)));
        let plan = Plan::new(target);
        let jobs = jobs(&plan, &ALL);
        let mut turns = turns(&jobs, plan.trials, SLOW_TRIALS);
        let cases = jobs.iter().map(|job| job.cases.len()).sum();
        turns.truncate(cases);
        turns.sort_unstable();
        turns.dedup();
        assert_eq!(turns.len(), cases);
    }
}
