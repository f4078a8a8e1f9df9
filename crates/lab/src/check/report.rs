use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use super::drain::Drain;
use super::outcome::{Model, Outcome, Trial};
use super::probe::Plain;
use super::reasons::{Made, ReasonCount};
use super::verdict::{Verdict, interval};

/// What a check found. `schema/check.json` describes it as JSON.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Where the server listens.
    pub address: String,
    /// The request: method and path.
    pub request: String,
    /// With which settings bytes could be lost.
    pub settings: Settings,
    /// What the request is answered with if it has no body.
    pub plain: Plain,
    /// How far the server reads on after an answer.
    pub drain: Drain,
    /// The worst of the scenarios' verdicts.
    pub verdict: Verdict,
    /// One for each scenario that was run.
    pub scenarios: Vec<ScenarioReport>,
    /// Why there are no reasons of the kernel; `null` if it was asked.
    pub no_kernel: Option<String>,
    /// How long it took.
    pub seconds: f64,
}

/// What makes a loss visible from outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Settings {
    /// Trials of each scenario with each client that were asked for; each case has at least one, if there is time.
    pub trials: u64,
    /// What `SO_RCVBUF` was asked for, on TCP.
    pub receive_buffer_bytes: u32,
    /// From a response's first byte to the first read.
    pub read_delay_ms: u64,
    /// Limit of each trial, the pauses between its writes not counted.
    pub timeout_ms: u64,
    /// Connections at once.
    pub at_once: u64,
}

/// A scenario's verdict and what it rests on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ScenarioReport {
    /// Its name.
    pub name: &'static str,
    /// What the client does.
    pub about: &'static str,
    /// The rule that it tests.
    pub rule: &'static str,
    /// The worse of the two clients'.
    pub verdict: Verdict,
    /// What the server does, in a sentence.
    pub sentence: String,
    /// One for each client.
    pub clients: Vec<ClientReport>,
}

/// A scenario's trials with one client.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClientReport {
    /// What it does when sending fails.
    pub client: Model,
    /// What its trials say.
    pub verdict: Verdict,
    /// What became of them.
    pub counts: Counts,
    /// Wilson's 95 % interval of the share of responses lost; `null` without trials.
    pub lost_interval: Option<(f64, f64)>,
    /// Statuses of the responses.
    pub statuses: Vec<StatusCount>,
    /// System calls that failed.
    pub failures: Vec<FailureCount>,
    /// Why the kernel reset connections of these trials: the reasons of the first RSTs, if it was asked.
    pub reasons: Vec<ReasonCount>,
    /// What was bad about a bad response, once.
    pub bad: Option<String>,
    /// The same trials, apart by sizes and gaps.
    pub cases: Vec<CaseReport>,
}

/// Responses with one status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StatusCount {
    /// The status.
    pub status: u16,
    /// How often.
    pub count: u64,
}

/// The trials of one size or gap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CaseReport {
    /// Its numbers.
    pub case: String,
    /// What its trials say.
    pub verdict: Verdict,
    /// What became of them.
    pub counts: Counts,
}

/// Trials counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// All of them.
    pub trials: u64,
    /// How they ended.
    pub outcomes: Outcomes,
    /// Of those that ended whole and then with a reset, the ones whose response lay in our kernel's queue before
    /// reading began: the reset could not have taken it.
    pub fits: u64,
    /// Of those that ended whole, the ones whose connection the server had not closed.
    pub left_open: u64,
    /// Bytes that responses lack which had begun: of the announced length, or of that of the plain answer.
    pub lost_bytes: u64,
    /// The longest response's body.
    pub body_bytes: u64,
}

/// A number for each outcome.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcomes([u64; Outcome::ALL.len()]);

/// System calls that failed in the same way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FailureCount {
    /// The call.
    pub call: &'static str,
    /// Its error number.
    pub errno: i32,
    /// The error's text.
    pub error: String,
    /// How often.
    pub count: u64,
    /// The soonest, in microseconds since the connection began.
    pub first_us: u64,
    /// The latest.
    pub last_us: u64,
}

impl Report {
    /// Bytes of bodies that were announced and did not come. A server may announce any number: `u64::MAX` is that
    /// or more.
    pub fn lost_bytes(&self) -> u64 {
        let clients = self.scenarios.iter().flat_map(|one| &one.clients);
        let lost = clients.map(|client| client.counts.lost_bytes);
        lost.fold(0, u64::saturating_add)
    }
}

impl ScenarioReport {
    /// Trials that met a reset, harmful or not.
    pub fn resets(&self) -> u64 {
        let resets = [
            Outcome::WholeThenReset,
            Outcome::TruncatedByReset,
            Outcome::NoResponseReset,
        ];
        let of = |client: &ClientReport| -> u64 {
            let counts = resets.iter().map(|one| client.counts.outcomes.of(*one));
            counts.sum()
        };
        self.clients.iter().map(of).sum()
    }
}

impl Outcomes {
    /// How many ended so.
    pub fn of(&self, outcome: Outcome) -> u64 {
        Outcome::ALL
            .iter()
            .zip(self.0)
            .filter(|(one, _)| **one == outcome)
            .map(|(_, count)| count)
            .sum()
    }

    /// How many lost their response, or its end.
    pub fn lost(&self) -> u64 {
        let lost = Outcome::ALL.iter().filter(|outcome| outcome.is_lost());
        lost.map(|outcome| self.of(*outcome)).sum()
    }

    pub(super) fn add(&mut self, outcome: Outcome) {
        for (one, count) in Outcome::ALL.iter().zip(&mut self.0) {
            *count += u64::from(*one == outcome);
        }
    }
}

impl Serialize for Outcomes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (outcome, count) in Outcome::ALL.iter().zip(self.0) {
            map.serialize_entry(outcome.as_str(), &count)?;
        }
        map.end()
    }
}

impl Counts {
    fn add(&mut self, trial: &Trial) {
        self.trials += 1;
        self.outcomes.add(trial.outcome);
        self.fits += u64::from(trial.fits && trial.outcome == Outcome::WholeThenReset);
        self.left_open += u64::from(trial.still_open);
        self.lost_bytes = self.lost_bytes.saturating_add(trial.lost_bytes);
        self.body_bytes = self.body_bytes.max(trial.body_bytes);
    }

    /// Adds the trials of another client.
    pub(super) fn merge(&mut self, other: &Self) {
        self.trials += other.trials;
        for (count, more) in self.outcomes.0.iter_mut().zip(other.outcomes.0) {
            *count += more;
        }
        self.fits += other.fits;
        self.left_open += other.left_open;
        self.lost_bytes = self.lost_bytes.saturating_add(other.lost_bytes);
        self.body_bytes = self.body_bytes.max(other.body_bytes);
    }
}

/// Counts the trials of one client.
#[derive(Debug)]
pub(super) struct Tally {
    report: ClientReport,
    made: Vec<Made>,
}

impl Tally {
    pub(super) fn new(client: Model, cases: impl IntoIterator<Item = String>) -> Self {
        let cases = cases.into_iter().map(|case| CaseReport {
            case,
            verdict: Verdict::CannotTell,
            counts: Counts::default(),
        });
        Self {
            report: ClientReport {
                client,
                verdict: Verdict::CannotTell,
                counts: Counts::default(),
                lost_interval: None,
                statuses: Vec::new(),
                failures: Vec::new(),
                reasons: Vec::new(),
                bad: None,
                cases: cases.collect(),
            },
            made: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, case: usize, trial: Trial) {
        self.made.extend(trial.made);
        let report = &mut self.report;
        report.counts.add(&trial);
        if let Some(case) = report.cases.get_mut(case) {
            case.counts.add(&trial);
        }
        if let Some(status) = trial.status {
            let same = |one: &&mut StatusCount| one.status == status;
            match report.statuses.iter_mut().find(same) {
                Some(one) => one.count += 1,
                None => report.statuses.push(StatusCount { status, count: 1 }),
            }
        }
        if let Some(failure) = trial.failure {
            let after = u64::try_from(failure.after.as_micros()).unwrap_or(u64::MAX);
            let same =
                |one: &&mut FailureCount| (one.call, one.errno) == (failure.call, failure.errno);
            match report.failures.iter_mut().find(same) {
                Some(one) => {
                    one.count += 1;
                    one.first_us = one.first_us.min(after);
                    one.last_us = one.last_us.max(after);
                }
                None => report.failures.push(FailureCount {
                    call: failure.call,
                    errno: failure.errno,
                    error: rstlab_wire::errno_text(failure.errno),
                    count: 1,
                    first_us: after,
                    last_us: after,
                }),
            }
        }
        report.bad = report.bad.take().or(trial.bad);
    }

    /// The connections of its trials, taken out.
    pub(super) fn made(&mut self) -> Vec<Made> {
        std::mem::take(&mut self.made)
    }

    /// Notes what the kernel said of them.
    pub(super) fn reasons(&mut self, reasons: Vec<ReasonCount>) {
        self.report.reasons = reasons;
    }

    pub(super) fn report(mut self, unix: bool) -> ClientReport {
        for case in &mut self.report.cases {
            case.verdict = Verdict::of(&case.counts, unix);
        }
        self.report.verdict = Verdict::of_all(&self.report.cases);
        let counts = &self.report.counts;
        self.report.lost_interval = interval(counts.outcomes.lost(), counts.trials);
        self.report
    }
}
