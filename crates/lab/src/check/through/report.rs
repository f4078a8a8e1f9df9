use std::collections::BTreeMap;

use serde::Serialize;

use crate::check::outcome::{Outcome, Trial};

/// How many clients of a proxy got the answer. `schema/through.json` describes it as JSON.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Where the proxy listens.
    pub address: String,
    /// The request: method and path.
    pub request: String,
    /// Where rstlab listened as its upstream.
    pub upstream: String,
    /// One for each size of a body.
    pub sizes: Vec<SizeReport>,
    /// How long it took.
    pub seconds: f64,
}

/// The uploads of one size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SizeReport {
    /// Length of the body.
    pub body_bytes: u64,
    /// Clients that uploaded one, and were not cut short.
    pub clients: u64,
    /// Those of them that got the upstream's answer, whole.
    pub answered: u64,
    /// What the others got, and how many.
    pub others: BTreeMap<String, u64>,
    /// Clients that were asked for and not tried, and why.
    pub untried: BTreeMap<Untried, u64>,
}

/// Why clients were not tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Untried {
    /// The time of the check was up.
    TimeUp,
    /// Several before them had run into their time limit, one after the other.
    TimeOuts,
}

impl Untried {
    /// It in words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TimeUp => "the time was up",
            Self::TimeOuts => "those before ran into the time limit",
        }
    }
}

impl Report {
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
        Outcome::WholeThenFin | Outcome::WholeThenReset => {
            format!("{status} of {} bytes", trial.body_bytes)
        }
        Outcome::TruncatedByReset | Outcome::TruncatedByEof => format!("{status}, cut"),
        Outcome::NoResponseReset => "a reset".to_owned(),
        Outcome::NoResponseEof => "no response".to_owned(),
        Outcome::Timeout => "a time-out".to_owned(),
        Outcome::BadResponse => "a bad response".to_owned(),
    }
}
