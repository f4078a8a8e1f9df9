//! The report of a check.

use schemars::JsonSchema;
use serde::Serialize;

use super::counts::Counts;
use super::drain::Drain;
use super::probe::Plain;
use super::reasons::ReasonCount;
use super::scenarios::{Scenario, scenario_names};
use super::trial::{FailedCall, Model, SocketCall, Trial};
use super::verdict::{CheckVerdict, interval};
use crate::shared::tally::tally;

/// Whether a server's clients lose responses, seen from outside.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(title = "rstlab check --json")]
pub struct CheckReport {
    /// Where the server listens: address:port, or the path of a unix socket.
    pub address: String,
    /// Method and path of the requests.
    pub request: String,
    /// The settings that make a loss visible from outside.
    pub settings: CheckSettings,
    /// The answer to the request without a body.
    pub plain: Plain,
    /// How far the server reads on after an answer.
    pub drain: Drain,
    /// The worst of the scenarios' verdicts.
    pub verdict: CheckVerdict,
    /// One for each scenario that was run.
    pub scenarios: Vec<ScenarioReport>,
    /// Why there are no reasons of the kernel; null if the kernel was asked (as root, on this machine).
    pub no_kernel: Option<String>,
    /// How long the check took.
    #[schemars(range(min = 0))]
    pub seconds: f64,
}

/// The settings that make a loss visible from outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct CheckSettings {
    /// Trials of each scenario with each client that were asked for; each case has at least one, if there is time.
    pub trials: u64,
    /// The size asked for with SO_RCVBUF, on TCP, until reading began.
    pub receive_buffer_bytes: u32,
    /// Time from a response's first byte to the first read; everything is sent before it.
    pub read_delay_ms: u64,
    /// Limit of each trial, the pauses between its writes not counted.
    pub timeout_ms: u64,
    /// Connections at once.
    pub at_once: u64,
}

/// A scenario's verdict and the trials behind it.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ScenarioReport {
    /// Its name.
    #[schemars(extend("enum" = scenario_names().collect::<Vec<_>>()))]
    pub name: &'static str,
    /// What the client does.
    pub about: &'static str,
    /// The rule that the scenario tests.
    pub rule: &'static str,
    /// The worse of the two clients' verdicts.
    pub verdict: CheckVerdict,
    /// What the server does, in a sentence.
    pub sentence: String,
    /// One for each client.
    pub clients: Vec<ClientReport>,
}

/// A scenario's trials with one client.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ClientReport {
    /// What the client does when sending fails.
    pub client: Model,
    /// What its trials say.
    pub verdict: CheckVerdict,
    /// How its trials ended.
    pub counts: Counts,
    /// Wilson's 95 % interval of the share of responses lost: low, high. null without trials.
    #[schemars(with = "Option<[f64; 2]>", extend("items" = {"type": "number", "minimum": 0}))]
    pub lost_interval: Option<(f64, f64)>,
    /// Statuses of the first response of each trial.
    pub statuses: Vec<StatusCount>,
    /// The first system call that failed in a trial, counted.
    pub failures: Vec<FailedCallCount>,
    /// Why the kernel reset connections: the first RSTs that the server sent, if the kernel was asked.
    pub reasons: Vec<ReasonCount>,
    /// What was bad about a bad response, once.
    pub bad: Option<String>,
    /// The same trials apart, by size and gap.
    pub cases: Vec<CaseReport>,
}

/// Responses with one status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct StatusCount {
    /// The status.
    pub status: u16,
    /// How many.
    #[schemars(range(min = 1))]
    pub count: u64,
}

/// The trials of one size and gap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct CaseReport {
    /// The size and the gap.
    pub case: String,
    /// What its trials say.
    pub verdict: CheckVerdict,
    /// How its trials ended.
    pub counts: Counts,
}

/// System calls that failed in the same way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct FailedCallCount {
    /// The call.
    pub call: SocketCall,
    /// Its error number.
    #[schemars(range(min = 0))]
    pub errno: i32,
    /// The error's number and text.
    pub error: String,
    /// How many.
    #[schemars(range(min = 1))]
    pub count: u64,
    /// The earliest, in microseconds since the connection began.
    pub first_us: u64,
    /// The latest.
    pub last_us: u64,
}

/// What a check fails on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FailOn {
    /// A response, or its end, was lost.
    Truncated,
    /// A response was lost, or a connection was reset.
    Reset,
}

impl FailOn {
    /// Whether a scenario fails.
    pub(super) fn fails(self, scenario: &ScenarioReport) -> bool {
        scenario.verdict == CheckVerdict::Loses || (self == Self::Reset && scenario.resets() > 0)
    }
}

impl ClientReport {
    pub(super) fn new(client: Model, cases: impl IntoIterator<Item = String>) -> Self {
        let cases = cases.into_iter().map(|case| CaseReport {
            case,
            verdict: CheckVerdict::CannotTell,
            counts: Counts::default(),
        });
        Self {
            client,
            verdict: CheckVerdict::CannotTell,
            counts: Counts::default(),
            lost_interval: None,
            statuses: Vec::new(),
            failures: Vec::new(),
            reasons: Vec::new(),
            bad: None,
            cases: cases.collect(),
        }
    }

    /// Counts a trial of the case.
    pub(super) fn add(&mut self, case: usize, trial: Trial) {
        self.counts.add(&trial);
        if let Some(case) = self.cases.get_mut(case) {
            case.counts.add(&trial);
        }
        if let Some(status) = trial.status {
            let new = StatusCount { status, count: 1 };
            let same = |one: &StatusCount, new: &StatusCount| one.status == new.status;
            tally(&mut self.statuses, new, same, |one, _| one.count += 1);
        }
        if let Some(FailedCall { call, errno, after }) = trial.failure {
            let after = u64::try_from(after.as_micros()).unwrap_or(u64::MAX);
            let new = FailedCallCount {
                call,
                errno,
                error: rstlab_wire::errno_text(errno),
                count: 1,
                first_us: after,
                last_us: after,
            };
            let same = |one: &FailedCallCount, new: &FailedCallCount| {
                (one.call, one.errno) == (new.call, new.errno)
            };
            tally(&mut self.failures, new, same, |one, _| {
                one.count += 1;
                one.first_us = one.first_us.min(after);
                one.last_us = one.last_us.max(after);
            });
        }
        self.bad = self.bad.take().or(trial.bad);
    }

    /// Adds the verdicts, once all trials are counted.
    pub(super) fn judge(&mut self, unix: bool) {
        for case in &mut self.cases {
            case.verdict = CheckVerdict::of(&case.counts, unix);
        }
        self.verdict = CheckVerdict::worst(self.cases.iter().map(|case| case.verdict));
        self.lost_interval = interval(self.counts.outcomes.lost(), self.counts.trials);
    }
}

impl CheckReport {
    /// Bytes of bodies that were announced and did not come. A server may announce any number: a sum beyond `u64` is
    /// `u64::MAX`.
    pub fn lost_bytes(&self) -> u64 {
        let clients = self.scenarios.iter().flat_map(|one| &one.clients);
        let lost = clients.map(|client| client.counts.lost_bytes);
        lost.fold(0, u64::saturating_add)
    }
}

impl ScenarioReport {
    /// The report of a scenario without trials.
    pub(super) fn new(scenario: &Scenario) -> Self {
        Self {
            name: scenario.name,
            about: scenario.about,
            rule: scenario.rule,
            verdict: CheckVerdict::CannotTell,
            sentence: String::new(),
            clients: Vec::new(),
        }
    }

    /// Trials that met a reset, harmful or not.
    pub fn resets(&self) -> u64 {
        let clients = self.clients.iter();
        clients.map(|client| client.counts.outcomes.resets()).sum()
    }
}
