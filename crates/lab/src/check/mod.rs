//! Does a server lose responses? Seen from outside, with no privilege.
//!
//! The parts: a `script` says what a client does, `client` plays one on one connection and says how it ended,
//! `drain` searches how far the server reads on after an answer. To lose bytes on loopback the client's receive
//! buffer is small, it sends everything before it reads, and it starts to read late: the end of a response then lies
//! with the server when the reset comes.

mod client;
mod drain;
mod drip;
mod link;
mod outcome;
mod probe;
mod reasons;
mod response;
mod script;
mod target;
mod unconnected;

use std::time::Duration;

pub use drain::{Bound, Drain, Kind};
pub use outcome::{Model, Outcome};
pub use probe::{CannotCheck, Plain};
pub use reasons::ReasonCount;
pub use target::{Address, Target};

/// What to check, and how.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The server and the path.
    pub target: Target,
    /// Method of the requests; a scenario may have its own.
    pub method: String,
    /// Fields added to each request.
    pub headers: Vec<(String, String)>,
    /// Bodies of requests, in bytes; some scenarios have their own.
    pub body_sizes: Vec<u64>,
    /// Pauses between head and body.
    pub gaps: Vec<Duration>,
    /// Trials of each scenario with each client; each case has at least one, if there is time.
    pub trials: u64,
    /// Names of the scenarios to run; empty is all of them.
    pub scenarios: Vec<String>,
    /// Limit of each trial.
    pub timeout: Duration,
}

impl Plan {
    /// All scenarios, 50 trials each.
    pub fn new(target: Target) -> Self {
        Self {
            target,
            method: "POST".to_owned(),
            headers: Vec::new(),
            body_sizes: vec![22, 60_000],
            gaps: [500, 2_000, 20_000].map(Duration::from_micros).into(),
            trials: 50,
            scenarios: Vec::new(),
            timeout: Duration::from_secs(5),
        }
    }
}
