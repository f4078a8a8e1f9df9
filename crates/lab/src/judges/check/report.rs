//! The report of a check.

use schemars::JsonSchema;
use serde::Serialize;

use super::comparison::Comparison;
use super::counts::Counts;
use super::drain::Drain;
use super::loss::Loss;
use super::outages::Outages;
use super::probe::Plain;
use super::reasons::ReasonCount;
use super::scenarios::{Scenario, scenario_names};
use super::severity::{RequestKind, Severity};
use super::trial::{ConnectionUse, FailedCall, Model, SocketCall, Trial, TrialOutcome};
use super::verdict::{CheckVerdict, interval};
use crate::shared::tally::tally;

/// The version of rstlab in reports: only reports of the same version are compared.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Whether a server's clients lose responses, seen from outside.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(title = "rstlab check --json")]
pub struct CheckReport {
    /// The version of rstlab.
    pub version: &'static str,
    /// Where the server listens: address:port, or the path of a unix socket.
    pub address: String,
    /// Method and path of the requests.
    pub request: String,
    /// The settings that make a loss visible from outside.
    pub settings: CheckSettings,
    /// The answer to the plain request.
    pub plain: Plain,
    /// How far the server reads on after an answer.
    pub drain: Drain,
    /// The worst of the scenarios' verdicts.
    pub verdict: CheckVerdict,
    /// Lost responses by who is hit, the worst first.
    pub losses: Vec<Loss>,
    /// One for each scenario that was run.
    pub scenarios: Vec<ScenarioReport>,
    /// Times in which the server refused connections, and was there again: somebody may have restarted it.
    pub outages: Outages,
    /// The check was interrupted before all trials were made.
    pub interrupted: bool,
    /// What changed since the check that `--baseline` names; null without it.
    pub baseline: Option<Comparison>,
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
    /// Length of the body given with `--data`; 0 without it.
    pub data_bytes: u64,
    /// The client that was played (`--as`); null if all scenarios were run.
    pub played_as: Option<&'static str>,
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
    /// The worst of the clients' verdicts.
    pub verdict: CheckVerdict,
    /// How bad the worst loss is; null if no response was lost.
    pub severity: Option<Severity>,
    /// What the server does, in a sentence.
    pub sentence: String,
    /// One for each client, and for each of its uses of the connection.
    pub clients: Vec<ClientReport>,
}

/// A scenario's trials with one client that uses its connections in one way.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ClientReport {
    /// How the client reads, and what it does when sending fails.
    pub client: Model,
    /// What its requests say about the connection.
    pub connection: ConnectionUse,
    /// What its trials say.
    pub verdict: CheckVerdict,
    /// How its trials ended.
    pub counts: Counts,
    /// Wilson's 95 % interval of the share of responses lost, of the trials that were not late: low, high. null without
    /// trials.
    #[schemars(with = "Option<[f64; 2]>", extend("items" = {"type": "number", "minimum": 0}))]
    pub lost_interval: Option<(f64, f64)>,
    /// Statuses of the first response of each trial, or of a later one that is not as expected.
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
    /// It is another one than is expected.
    pub is_other: bool,
    /// How many.
    #[schemars(range(min = 1))]
    pub count: u64,
}

/// The trials of one size and gap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct CaseReport {
    /// The size and the gap.
    pub case: String,
    /// What kind of request it is.
    pub requests: RequestKind,
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

impl ClientReport {
    pub(super) fn new(
        client: Model,
        connection: ConnectionUse,
        cases: impl IntoIterator<Item = (String, RequestKind)>,
    ) -> Self {
        let cases = cases.into_iter().map(|(case, requests)| CaseReport {
            case,
            requests,
            verdict: CheckVerdict::CannotTell,
            counts: Counts::default(),
        });
        Self {
            client,
            connection,
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
            let is_other = trial.is_other_status;
            let new = StatusCount {
                status,
                is_other,
                count: 1,
            };
            let same = |one: &StatusCount, new: &StatusCount| {
                (one.status, one.is_other) == (new.status, new.is_other)
            };
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
        let Counts {
            late, late_lost, ..
        } = self.counts;
        let lost = self.counts.outcomes.lost() - late_lost;
        self.lost_interval = interval(lost, self.counts.trials - late);
    }
}

impl CaseReport {
    /// Trials that lost their response, by the kind of the request that lost it: on a kept connection the first request is
    /// of its own kind.
    pub(super) fn lost_by_kind(&self) -> [(RequestKind, u64); 2] {
        let lost = self.counts.outcomes.lost();
        let next = match self.requests {
            RequestKind::Rare => 0,
            _ => self.counts.lost_next,
        };
        [(self.requests, lost - next), (RequestKind::Next, next)]
    }

    /// Nothing can be told because the responses are small: no reset could have taken them.
    pub(super) fn is_too_small(&self) -> bool {
        let Counts {
            trials,
            turned_away,
            fits,
            ..
        } = self.counts;
        let has_ended = self.counts.outcomes.of(TrialOutcome::Timeout) == 0;
        let is_tried = trials > 0 && turned_away == 0 && has_ended;
        self.verdict == CheckVerdict::CannotTell && is_tried && fits > 0
    }
}

impl CheckReport {
    /// Trials of all scenarios and clients together.
    pub fn counts(&self) -> Counts {
        let mut all = Counts::default();
        for client in self.scenarios.iter().flat_map(|one| &one.clients) {
            all.merge(&client.counts);
        }
        all
    }

    /// Bytes of bodies that were announced and did not come. A server may announce any number: a sum beyond `u64` is
    /// `u64::MAX`.
    pub fn lost_bytes(&self) -> u64 {
        self.counts().lost_bytes
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
            severity: None,
            sentence: String::new(),
            clients: Vec::new(),
        }
    }

    /// How bad the worst loss among its trials is; `None` if no response was lost.
    pub(super) fn worst_loss(&self) -> Option<Severity> {
        let of_clients = self.clients.iter().flat_map(|client| {
            let lost = client.cases.iter().flat_map(CaseReport::lost_by_kind);
            lost.filter(|(_, lost)| *lost > 0)
                .map(|(requests, _)| Severity::of(requests, client.client))
        });
        of_clients.max()
    }

    /// Nothing can be told only because the responses are small.
    pub(super) fn is_too_small(&self) -> bool {
        let mut cases = self.clients.iter().flat_map(|one| &one.cases);
        self.verdict == CheckVerdict::CannotTell
            && cases.all(|case| case.verdict != CheckVerdict::CannotTell || case.is_too_small())
    }

    /// Trials that met a reset, harmful or not.
    pub fn resets(&self) -> u64 {
        let clients = self.clients.iter();
        clients.map(|client| client.counts.outcomes.resets()).sum()
    }
}
