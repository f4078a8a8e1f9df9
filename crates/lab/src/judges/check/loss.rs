//! A loss as reports have it: who loses responses, how often, why, and what to do.

use schemars::JsonSchema;
use serde::Serialize;

use super::reasons::ReasonCount;
use super::scenarios::scenario_names;
use super::severity::{RequestKind, Severity};
use super::trial::{ConnectionUse, Model};

/// Lost responses to requests of one kind, of clients that are hit alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Loss {
    /// How bad it is.
    pub severity: Severity,
    /// What kind of request loses its response.
    pub requests: RequestKind,
    /// The clients that lose responses.
    pub clients: Vec<Model>,
    /// How many trials lost a response, by what the requests say about the connection and by client, also of those that
    /// lost none.
    pub shares: Vec<LostShare>,
    /// The scenarios in which responses were lost.
    #[schemars(extend("items" = {"enum": scenario_names().collect::<Vec<_>>()}))]
    pub scenarios: Vec<&'static str>,
    /// Why the kernel reset connections in these scenarios, the most frequent first; empty if the kernel was not asked.
    pub reasons: Vec<ReasonCount>,
    /// Who loses what, and how often.
    pub sentence: String,
    /// Proxies that send such requests to a server by their defaults; null if the requests are not usual ones.
    pub proxies: Option<String>,
    /// Why, by the kernel's most frequent reason; null if the kernel was not asked.
    pub why: Option<String>,
    /// What to do about it.
    pub what_to_do: String,
}

/// A client's trials on connections of one use, and those of them that lost their response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct LostShare {
    /// What the requests say about the connection.
    pub connection: ConnectionUse,
    /// How the client reads, and what it does when sending fails.
    pub client: Model,
    /// Trials that lost their response.
    pub lost: u64,
    /// All trials.
    #[schemars(range(min = 1))]
    pub trials: u64,
}
