//! The report of a check of a proxy.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use strum::{AsRefStr, EnumMessage, VariantArray};

use crate::judges::check::counts::counts_schema;
use crate::judges::check::trial::{Trial, TrialOutcome};

/// How many clients of a proxy get an answer that its upstream gives before the upload has ended.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(title = "rstlab check --through --json")]
pub struct ThroughReport {
    /// Where the proxy listens.
    pub address: String,
    /// Method and path of the requests.
    pub request: String,
    /// Where rstlab listened as the proxy's upstream.
    pub upstream: String,
    /// One for each size of a body.
    pub sizes: Vec<SizeReport>,
    /// How long the check took.
    #[schemars(range(min = 0))]
    pub seconds: f64,
}

/// The uploads of one size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct SizeReport {
    /// Length of the body.
    pub body_bytes: u64,
    /// Clients that uploaded such a body and were not cut short.
    pub clients: u64,
    /// Those of them that got the upstream's whole answer.
    pub answered: u64,
    /// What the others got, in words, and how many of them.
    pub others: BTreeMap<String, u64>,
    /// Clients that were asked for and not tried, by the reason.
    #[schemars(schema_with = "untried_schema")]
    pub untried: BTreeMap<Untried, u64>,
}

/// Why clients were not tried.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    EnumMessage,
    AsRefStr,
    VariantArray,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum Untried {
    /// The time of the check was up.
    #[strum(message = "the time was up")]
    TimeUp,
    /// Several clients before had reached their time limit, one after the other.
    #[strum(message = "those before ran into the time limit")]
    TimeOuts,
}

fn untried_schema(_: &mut SchemaGenerator) -> Schema {
    counts_schema::<Untried>(1, &[])
}

impl ThroughReport {
    /// Whether every client that was tried got the answer, and there was one of each size.
    pub fn all_answered(&self) -> bool {
        let all = |size: &SizeReport| size.answered == size.clients && size.clients > 0;
        self.sizes.iter().all(all)
    }

    /// Clients that were asked for and not tried.
    pub fn untried(&self) -> u64 {
        let untried = self.sizes.iter().flat_map(|size| size.untried.values());
        untried.sum()
    }
}

impl SizeReport {
    pub(super) fn new(body_bytes: u64) -> Self {
        Self {
            body_bytes,
            clients: 0,
            answered: 0,
            others: BTreeMap::new(),
            untried: BTreeMap::new(),
        }
    }

    pub(super) fn skip(&mut self, why: Untried) {
        *self.untried.entry(why).or_default() += 1;
    }

    pub(super) fn add(&mut self, answered: bool, ending: &str) {
        self.clients += 1;
        if answered {
            self.answered += 1;
        } else {
            *self.others.entry(ending.to_owned()).or_default() += 1;
        }
    }
}

/// What a client got, in words.
pub(super) fn ending(trial: &Trial) -> String {
    let status = trial
        .status
        .map_or("response".to_owned(), |status| status.to_string());
    match trial.outcome {
        TrialOutcome::WholeThenFin | TrialOutcome::WholeThenReset | TrialOutcome::GatewayError => {
            format!("{status} of {} bytes", trial.body_bytes)
        }
        TrialOutcome::TruncatedByReset | TrialOutcome::TruncatedByEof => format!("{status}, cut"),
        TrialOutcome::NoResponseReset => "a reset".to_owned(),
        TrialOutcome::NoResponseEof => "no response".to_owned(),
        TrialOutcome::Timeout => "a time-out".to_owned(),
        TrialOutcome::BadResponse => "a bad response".to_owned(),
    }
}
