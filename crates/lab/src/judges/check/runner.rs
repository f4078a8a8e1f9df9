//! Runs trials, several connections at once, and counts how they end.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rstlab_wire::accept;
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep, timeout_at};

use super::cannot_check::{CannotCheck, is_refused, unconnected};
use super::client::{Client, Manner};
use super::jobs::{Job, Turn};
use super::outages::{self, RETRY_EVERY, Refusals};
use super::plan::CheckPlan;
use super::probe::Plain;
use super::reasons::Made;
use super::report::ClientReport;
use super::script::Script;
use super::trial::{FailedCall, SocketCall, Trial, TrialOutcome};
use super::turned_away::{MIN_TURNED_AWAY, TurnedAway};

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

/// A lost response counts only after so long: until then a refused connection may show that the server ended.
const SETTLED: Duration = outages::BEFORE.saturating_mul(2);

/// A trial that has ended.
pub(super) struct EndedTrial {
    turn: Turn,
    begun: Instant,
    ended: Instant,
    /// `None` if its time was up.
    result: Option<Result<Trial, io::Error>>,
}

pub(super) struct Runner {
    plan: Arc<CheckPlan>,
    plain: Arc<Plain>,
    active: Arc<Semaphore>,
    watched: Arc<Semaphore>,
    slow: Arc<Semaphore>,
    /// When trials that have not ended are cut short.
    end: Instant,
    pub(super) running: JoinSet<EndedTrial>,
    /// The connections of each job.
    pub(super) made: Vec<Vec<Made>>,
    /// The report of each job.
    pub(super) clients: Vec<ClientReport>,
    pub(super) refusals: Arc<Refusals>,
    /// Trials that lost their response and do not count yet, in the order in which they ended.
    doubtful: VecDeque<(EndedTrial, Trial)>,
    /// Trials that lost their response because the server ended.
    pub(super) left_out: u64,
    pub(super) turned_away: TurnedAway,
}

impl Runner {
    pub(super) fn new(
        plan: &Arc<CheckPlan>,
        plain: &Arc<Plain>,
        jobs: &[Arc<Job>],
        end: Instant,
    ) -> Self {
        let client = |job: &Arc<Job>| {
            let cases = job.cases.iter();
            let cases = cases.map(|case| (case.label.clone(), case.requests));
            ClientReport::new(job.model, job.connection, cases)
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
    pub(super) async fn start(&mut self, turn: Turn, job: &Arc<Job>) {
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
            EndedTrial {
                turn,
                begun,
                ended: Instant::now(),
                result: trial,
            }
        });
    }

    /// Counts a trial and returns 1, or 0 if its time was up. `made` is how many trials there were before.
    pub(super) fn count(
        &mut self,
        finished: Result<EndedTrial, JoinError>,
        made: u64,
    ) -> Result<u64, CannotCheck> {
        let mut finished = match finished {
            Ok(finished) => finished,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        self.settle();
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
    fn settle(&mut self) {
        let now = Instant::now();
        let is_known = |(one, _): &mut (EndedTrial, Trial)| one.ended + SETTLED < now;
        while let Some((finished, trial)) = self.doubtful.pop_front_if(is_known) {
            self.count_lost(&finished, trial);
        }
    }

    /// Counts the lost responses that are left, when all trials have ended.
    pub(super) fn settle_all(&mut self) {
        for (finished, trial) in std::mem::take(&mut self.doubtful) {
            self.count_lost(&finished, trial);
        }
    }

    fn count_lost(&mut self, finished: &EndedTrial, trial: Trial) {
        match self.refusals.are_around(finished.begun, finished.ended) {
            true => self.left_out += 1,
            false => self.add(finished.turn, trial),
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
