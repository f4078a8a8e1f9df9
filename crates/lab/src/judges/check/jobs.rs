//! Which trials there are, and in which order.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use strum::VariantArray as _;

use super::plan::CheckPlan;
use super::scenario_case::ScenarioCase;
use super::scenarios::{Conditions, Scenario};
use super::trial::{ConnectionUse, Model};

/// A script that pauses for so long is slow: it has few trials, which run beside the others.
const SLOW: Duration = Duration::from_secs(1);

/// Trials of a slow script with each client; a server that serves one connection at a time has time for one.
const SLOW_TRIALS: usize = 4;

/// A scenario with one client that uses its connections in one way.
pub(super) struct Job {
    pub(super) scenario: usize,
    pub(super) model: Model,
    pub(super) connection: ConnectionUse,
    pub(super) cases: Arc<[ScenarioCase]>,
    pub(super) timeouts: AtomicU64,
}

impl Job {
    pub(super) fn is_slow(&self, case: usize) -> bool {
        is_slow(&self.cases[case])
    }
}

fn is_slow(case: &ScenarioCase) -> bool {
    case.script.pauses() >= SLOW
}

/// A trial to come: the number of its job and the number of the job's case.
pub(super) type Turn = (usize, usize);

/// A job for each scenario, each client and each of its uses of the connection. A server that serves one connection at a
/// time has no time for slow cases on connections of both kinds, and mostly keeps none.
pub(super) fn jobs(
    plan: &CheckPlan,
    scenarios: &[Scenario],
    unread_bytes: Option<u64>,
    one_at_a_time: bool,
) -> Vec<Arc<Job>> {
    let mut jobs = Vec::new();
    for (scenario, one) in scenarios.iter().enumerate() {
        for connection in connections(plan, one).iter().copied() {
            let conditions = Conditions {
                plan,
                connection,
                unread_bytes,
            };
            let mut cases = (one.cases)(&conditions);
            if one_at_a_time && connection == ConnectionUse::Kept {
                cases.retain(|case| !is_slow(case));
            }
            let cases: Arc<[ScenarioCase]> = cases.into();
            if cases.is_empty() {
                continue;
            }
            let is_played = |model: &Model| {
                plan.imitated
                    .is_none_or(|client| client.is_played_by(*model))
            };
            for model in Model::VARIANTS.iter().copied().filter(is_played) {
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

/// A request of HTTP/1.0 asks for the end of the connection, whatever its scenario says.
fn connections(plan: &CheckPlan, one: &Scenario) -> &'static [ConnectionUse] {
    match plan.imitated {
        Some(client) => std::slice::from_ref(&client.connection),
        None if plan.http_1_0 => &[ConnectionUse::Close],
        None => one.connections,
    }
}

/// Each case of each job in turn, again and again: `trials` of a job, and at least one of each case. Every case comes once
/// before any comes a second time, so that as few as possible are untried when the time is up. A slow case has
/// [`SLOW_TRIALS`], and the other cases of its job take its place.
pub(super) fn turns(jobs: &[Arc<Job>], trials: u64, one_at_a_time: bool) -> Vec<Turn> {
    let slow_trials = if one_at_a_time { 1 } else { SLOW_TRIALS };
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
        if one_at_a_time {
            // The slow ones would keep the others from their first turn.
            turns[before..].sort_by_key(|(job, case)| jobs[*job].is_slow(*case));
        }
        if turns.len() == before {
            break;
        }
    }
    turns
}

/// How many requests the trials of the plan are at most.
pub(super) fn requests(plan: &CheckPlan, scenarios: &[Scenario]) -> u64 {
    let jobs = jobs(plan, scenarios, None, false);
    let turns = turns(&jobs, plan.trials, false).into_iter();
    turns
        .map(|(job, case)| jobs[job].cases[case].script.responses as u64)
        .sum()
}

#[cfg(test)]
mod tests {
    use super::super::scenarios::SCENARIOS;
    use super::*;
    use crate::shared::target::Target;

    /// How often each case of the scenario has its turn, with one client.
    fn trials(plan: &CheckPlan, name: &str) -> Vec<usize> {
        let one = SCENARIOS.into_iter().find(|one| one.name == name).unwrap();
        let jobs = jobs(plan, &[one], None, false);
        let turns = turns(&jobs, plan.trials, false);
        let of = |case| turns.iter().filter(|turn| **turn == (0, case)).count();
        (0..jobs[0].cases.len()).map(of).collect()
    }

    #[test]
    fn every_combination_is_tried_and_a_slow_one_takes_no_trials_from_others() {
        let target = Target::from(std::net::SocketAddr::from(([127, 0, 0, 1], 80)));
        let mut plan = CheckPlan::new(target);
        assert_eq!(trials(&plan, "body-large"), [13, 13, 12, 12]);
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
        let jobs = jobs(&plan, &SCENARIOS, None, false);
        let mut turns = turns(&jobs, plan.trials, false);
        let cases = jobs.iter().map(|job| job.cases.len()).sum();
        turns.truncate(cases);
        turns.sort_unstable();
        turns.dedup();
        assert_eq!(turns.len(), cases);
    }

    #[test]
    fn a_server_that_serves_one_connection_at_a_time_meets_each_slow_case_once_and_last() {
        let target = Target::from(std::net::SocketAddr::from(([127, 0, 0, 1], 80)));
        let plan = CheckPlan {
            trials: 2,
            ..CheckPlan::new(target)
        };
        let jobs = jobs(&plan, &SCENARIOS, None, true);
        let turns = turns(&jobs, 1, true);
        let is_slow: Vec<_> = turns
            .iter()
            .map(|(job, case)| jobs[*job].is_slow(*case))
            .collect();
        assert!(is_slow.is_sorted());
        let slow = is_slow.iter().filter(|slow| **slow).count();
        assert_eq!(slow, Model::VARIANTS.len());
    }
}
