//! The loads of a bench, one row each.

use rstlab_cli::grouped;

/// Length of a large response, larger than the buffers of every proxy and of loopback's sockets.
const LARGE: u64 = 614_400;

/// Length of a response that fits in one segment of loopback.
const SMALL: u64 = 1_024;

/// Length of a download or an upload.
const HUGE: u64 = 64_000_000;

/// The body of a POST: `name=value&name=value.`
const FORM: u64 = 22;

/// Estimated time of a small request on two cores, for proxy, upstream and load together, in seconds.
const ESTIMATED_REQUEST: f64 = 200e-6;

/// Estimated time of each byte of a body, likewise.
const ESTIMATED_BYTE: f64 = 1.2e-9;

/// A load: what is requested, how the upstream answers, and over how many connections.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BenchCase {
    pub(super) name: &'static str,
    /// Bytes of the body of a POST; `None` is a GET.
    pub(super) post: Option<u64>,
    /// Bytes of the response's body.
    pub(super) response: u64,
    /// The upstream keeps its connections; otherwise it closes after each response.
    pub(super) kept: bool,
    /// Connections of clients, which are kept.
    pub(super) connections: usize,
    /// A turn has `--requests` divided by this.
    divisor: u64,
    /// `--quick` has it.
    pub(super) quick: bool,
}

macro_rules! cases {
    ($($name:literal: $post:expr, $response:expr, $upstream:ident, $connections:literal, $divisor:literal, $run:ident;)+) => {
        /// All of them.
        pub(super) const CASES: &[BenchCase] = &[$(
            BenchCase {
                name: $name,
                post: $post,
                response: $response,
                kept: matches!(CaseUpstream::$upstream, CaseUpstream::Keeps),
                connections: $connections,
                divisor: $divisor,
                quick: matches!(CaseRun::$run, CaseRun::Quick),
            },
        )+];
    };
}

/// What the upstream does after a response.
enum CaseUpstream {
    Closes,
    Keeps,
}

/// Which runs have a case.
enum CaseRun {
    Quick,
    Full,
}

cases! {
    "post-600k": Some(FORM), LARGE, Closes, 16, 4, Quick;
    "post-600k-kept": Some(FORM), LARGE, Keeps, 16, 4, Full;
    "post-1k": Some(FORM), SMALL, Closes, 16, 1, Quick;
    "post-1k-kept": Some(FORM), SMALL, Keeps, 16, 1, Full;
    "get-1k-kept": None, SMALL, Keeps, 16, 1, Quick;
    "post-1k-256": Some(FORM), SMALL, Closes, 256, 1, Full;
    "post-1k-4096": Some(FORM), SMALL, Closes, 4096, 1, Full;
    "get-1k-kept-256": None, SMALL, Keeps, 256, 1, Full;
    "download-64m": None, HUGE, Closes, 4, 500, Full;
    "upload-64m": Some(HUGE), SMALL, Closes, 4, 500, Full;
}

impl BenchCase {
    /// Counted requests of a turn: at least two for each connection.
    pub(super) fn requests(&self, requests: u64) -> u64 {
        (requests / self.divisor).max(2 * self.connections as u64)
    }

    /// Requests before those: each connection gets one, and a tenth of the counted requests warm the caches up.
    pub(super) fn warm_up(&self, requests: u64) -> u64 {
        (self.requests(requests) / 10).max(self.connections as u64)
    }

    /// A rough estimate of a turn's time in seconds, for the announcement of a run.
    pub(super) fn estimated_seconds(&self, requests: u64) -> f64 {
        let bytes = self.response + self.post.unwrap_or(0);
        let each = ESTIMATED_REQUEST + ESTIMATED_BYTE * bytes as f64;
        (self.requests(requests) + self.warm_up(requests)) as f64 * each
    }

    /// The case in words.
    pub(super) fn words(&self) -> String {
        let request = match self.post {
            Some(bytes) => format!("POST of {} B", grouped(bytes)),
            None => "GET".to_owned(),
        };
        let upstream = if self.kept { "keeps" } else { "closes" };
        format!(
            "{request}, response of {} B, the upstream {upstream} its connections, {} clients",
            grouped(self.response),
            grouped(self.connections as u64)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_has_fewer_large_requests_and_two_for_each_connection() {
        let case = |name| CASES.iter().find(|case| case.name == name).unwrap();
        for (name, requests, warm_up) in [
            ("post-1k", 4000, 400),
            ("post-600k", 1000, 100),
            ("post-1k-4096", 8192, 4096),
            ("upload-64m", 8, 4),
        ] {
            assert_eq!(case(name).requests(4000), requests, "{name}");
            assert_eq!(case(name).warm_up(4000), warm_up, "{name}");
        }
    }

    #[test]
    fn each_name_names_one_case() {
        for case in CASES {
            let alike = CASES.iter().filter(|other| other.name == case.name);
            assert_eq!(alike.count(), 1, "{}", case.name);
        }
    }
}
