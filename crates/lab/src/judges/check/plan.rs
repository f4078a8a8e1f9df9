//! What a check is asked to do: the server, the requests, how many trials.

use std::time::Duration;

use http::Method;

use super::imitated::ImitatedClient;
use super::pace::RequestPace;
use crate::shared::target::Target;

/// What to check, and how.
#[derive(Debug, Clone)]
pub struct CheckPlan {
    /// The server and the path.
    pub target: Target,
    /// Method of the requests; a scenario may have its own.
    pub method: String,
    /// Fields added to each request.
    pub headers: Vec<(String, String)>,
    /// What the requests' bodies begin with; empty if their content does not matter.
    pub body: Vec<u8>,
    /// The requests are HTTP/1.0, and the scenarios that need HTTP/1.1 are left out.
    pub http_1_0: bool,
    /// The client that is played in place of all; `None` plays all of them.
    pub imitated: Option<&'static ImitatedClient>,
    /// Path of uploads that the server answers before it has read them; `None` is a path that does not exist.
    pub early_path: Option<String>,
    /// Lengths of the requests' bodies, in bytes; some scenarios have their own.
    pub body_sizes: Vec<u64>,
    /// Pauses between head and body.
    pub gaps: Vec<Duration>,
    /// Trials of each scenario with each client; each case has at least one, if there is time.
    pub trials: u64,
    /// Names of the scenarios to run; an empty list means all of them.
    pub scenarios: Vec<String>,
    /// Names of the scenarios to leave out.
    pub skip: Vec<String>,
    /// Limit of each trial.
    pub timeout: Duration,
    /// Statuses expected of the path; an empty list means that of the answer to the request without a body.
    pub expected_statuses: Vec<u16>,
    /// How long to wait for a server that refuses connections once it was there: it may be restarted.
    pub retry: Duration,
    /// Limit of the whole check; `None` gives it time for the trials.
    pub max_time: Option<Duration>,
    /// How fast requests follow each other.
    pub pace: RequestPace,
}

impl CheckPlan {
    /// A check of a server: all scenarios, 50 trials each.
    pub fn new(target: Target) -> Self {
        Self {
            target,
            method: "POST".to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
            http_1_0: false,
            imitated: None,
            early_path: None,
            body_sizes: vec![22, 60_000],
            gaps: [500, 2_000, 20_000].map(Duration::from_micros).into(),
            trials: 50,
            scenarios: Vec::new(),
            skip: Vec::new(),
            timeout: Duration::from_secs(5),
            expected_statuses: Vec::new(),
            retry: Duration::from_secs(2),
            max_time: None,
            pace: RequestPace::default(),
        }
    }

    /// A check of a proxy: 100 clients of each size.
    pub fn through(target: Target) -> Self {
        Self {
            body_sizes: vec![22, 100_000, 1_000_000, 5_000_000],
            trials: 100,
            ..Self::new(target)
        }
    }

    /// The length of a body for which `bytes` are enough: the given content is never cut.
    pub(super) fn at_least(&self, bytes: u64) -> u64 {
        bytes.max(self.body.len() as u64)
    }
}

/// A request's method; CONNECT is no request for a server's own path.
pub(crate) fn method(text: &str) -> Option<String> {
    let method = Method::from_bytes(text.as_bytes()).ok();
    method
        .filter(|one| *one != Method::CONNECT)
        .map(|one| one.to_string())
}
