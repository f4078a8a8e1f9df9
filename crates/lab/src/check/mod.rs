//! `rstlab check`: does a server lose responses? Seen from outside, with no privilege.
//!
//! The parts: `scenarios` write what a client does as a `script`, `client` plays one on one connection and says
//! how it ended, `engine` runs them all, `drain` searches how far the server reads on after an answer, `verdict`
//! judges, and none of them takes more than its share of the `budget` of time. To lose bytes on loopback the
//! client's receive buffer is small, it sends everything before it reads, and it starts to read late: the end of a
//! response then lies with the server when the reset comes.

mod args;
mod budget;
mod client;
mod drain;
mod drip;
mod engine;
mod junit;
mod link;
mod markdown;
mod outcome;
mod probe;
mod reasons;
mod report;
mod response;
mod scenarios;
mod script;
mod sentence;
mod target;
mod text;
pub mod through;
mod unconnected;
mod verdict;

use std::sync::Arc;
use std::time::Duration;

use budget::Budget;
use tokio::time::timeout_at;

pub use args::{Args, Config, execute};
pub use drain::{Bound, Drain, Kind};
pub use outcome::{Model, Outcome};
pub use probe::{CannotCheck, Plain};
pub use reasons::ReasonCount;
pub use report::{
    CaseReport, ClientReport, Counts, FailureCount, Outcomes, Report, ScenarioReport, Settings,
    StatusCount,
};
pub use scenarios::names as scenario_names;
pub use target::{Address, Target};
pub use verdict::Verdict;

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

/// Checks a server; `progress` is told how many trials of how many are done.
///
/// # Errors
/// There is no server that answers a plain request with HTTP/1, no trial could be made, or a connection could not.
pub async fn run(plan: &Plan, progress: impl Fn(u64, u64)) -> Result<Report, CannotCheck> {
    run_within(plan, Budget::of(plan), progress).await
}

async fn run_within(
    plan: &Plan,
    budget: Budget,
    progress: impl Fn(u64, u64),
) -> Result<Report, CannotCheck> {
    let shared = Arc::new(plan.clone());
    let chosen: Vec<_> = scenarios::ALL
        .into_iter()
        .filter(|one| {
            plan.scenarios.is_empty() || plan.scenarios.iter().any(|name| name == one.name)
        })
        .collect();
    let plain = timeout_at(budget.end(), probe::plain(plan)).await;
    let plain = plain.unwrap_or_else(|_| {
        let (address, limit) = (plan.target.address.clone(), budget.all());
        Err(CannotCheck::Silent { address, limit })
    });
    let plain = Arc::new(plain?);
    let bytes = drain::bytes(plan, &plain, budget.search_end()).await;
    let (kernel, no_kernel) = match reasons::listen(&plan.target.address) {
        Ok(kernel) => (Some(kernel), None),
        Err(why) => (None, Some(why)),
    };
    let trials = engine::run(&shared, &chosen, &plain, budget, kernel, progress);
    let (drain, scenarios) = if plain.one_at_a_time {
        let drain = drain::time(&shared, &plain, bytes, budget.half()).await;
        (drain, trials.await?)
    } else {
        let time = drain::time(&shared, &plain, bytes, budget.last_begin());
        tokio::try_join!(async { Ok(time.await) }, trials)?
    };
    let clients = scenarios.iter().flat_map(|one| &one.clients);
    let made = clients.map(|one| one.counts.trials).sum();
    if made == 0 {
        return Err(CannotCheck::NoTrial {
            address: plan.target.address.clone(),
            limit: budget.all(),
            first_byte: plain.first_byte(),
        });
    }
    let worst = scenarios.iter().map(|one| one.verdict).max();
    if worst == Some(Verdict::Loses) {
        probe::still_there(plan, made).await?;
    }
    Ok(Report {
        address: plan.target.address.to_string(),
        request: format!("{} {}", plan.method, plan.target.path),
        settings: Settings {
            trials: plan.trials,
            receive_buffer_bytes: client::RECEIVE_BUFFER,
            read_delay_ms: client::READ_DELAY.as_millis() as u64,
            timeout_ms: u64::try_from(plan.timeout.as_millis()).unwrap_or(u64::MAX),
            at_once: engine::at_once(&plain) as u64,
        },
        plain: Arc::unwrap_or_clone(plain),
        drain,
        verdict: worst.unwrap_or(Verdict::CannotTell),
        scenarios,
        no_kernel,
        seconds: budget.spent().as_secs_f64(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::mpsc;

    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

    /// Reads a head, and not the body.
    async fn head(stream: &mut TcpStream) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => break,
            }
        }
        String::from_utf8(head).unwrap().to_ascii_lowercase()
    }

    fn plan(listener: &TcpListener) -> Plan {
        Plan::new(Target::from(listener.local_addr().unwrap()))
    }

    /// Checks a server that does `serve` with each connection, one after the other or all at once.
    async fn checked<F>(
        at_once: bool,
        change: impl FnOnce(&mut Plan),
        seconds: u64,
        serve: impl Fn(TcpStream) -> F,
    ) -> Result<Report, CannotCheck>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut plan = plan(&listener);
        change(&mut plan);
        let server = async {
            loop {
                let serving = tokio::spawn(serve(listener.accept().await.unwrap().0));
                if !at_once {
                    serving.await.unwrap();
                }
            }
        };
        let budget = Budget::new(Duration::from_secs(seconds));
        tokio::select! {
            () = server => panic!("it ended"),
            report = run_within(&plan, budget, |_, _| {}) => report,
        }
    }

    /// Thinks for a while, answers and closes, whatever else came.
    async fn slow(mut stream: TcpStream) {
        head(&mut stream).await;
        tokio::time::sleep(Duration::from_millis(1100)).await;
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 614400\r\n\r\n";
        let _ = stream.write_all(head.as_bytes()).await;
        let _ = stream.write_all(&vec![b'x'; 614_400]).await;
    }

    #[tokio::test]
    async fn a_slow_server_is_tried_all_the_same() {
        let after_gap = |plan: &mut Plan| plan.scenarios = vec!["body-after-gap".to_owned()];
        let (at_once, one_by_one) = tokio::join!(
            checked(true, after_gap, 5, slow),
            checked(false, after_gap, 9, slow),
        );
        for (report, one_at_a_time) in [(at_once, false), (one_by_one, true)] {
            let report = report.unwrap();
            assert!(report.plain.one_at_a_time || !one_at_a_time);
            assert_eq!(report.verdict, Verdict::Loses, "{report:#?}");
            assert_eq!(report.drain.kind, Kind::NotSearched);
        }
    }

    #[tokio::test]
    async fn what_a_server_loses_by_ending_is_not_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let plan = Plan {
            trials: 1,
            scenarios: vec!["body-with-head".to_owned()],
            body_sizes: vec![22],
            ..plan(&listener)
        };
        let server = async move {
            let (ends, mut trials) = mpsc::channel(2);
            let mut ending = Vec::new();
            // It ends when both kinds of clients have sent a body.
            while ending.len() < 2 {
                tokio::select! {
                    Some(stream) = trials.recv() => ending.push(stream),
                    accepted = listener.accept() => {
                        let (mut stream, _) = accepted.unwrap();
                        let ends = ends.clone();
                        tokio::spawn(async move {
                            if head(&mut stream).await.contains("content-length: 22\r\n") {
                                ends.send(stream).await.unwrap();
                            } else {
                                let _ = stream.write_all(ANSWER).await;
                            }
                        });
                    }
                }
            }
        };
        let (report, ()) = tokio::join!(run(&plan, |_, _| {}), server);
        let error = report.unwrap_err().to_string();
        assert!(
            error.contains("stopped taking connections after 2"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_check_without_a_trial_is_none() {
        let long = |plan: &mut Plan| {
            plan.gaps = vec![Duration::from_secs(60)];
            plan.scenarios = vec!["body-after-gap".to_owned()];
        };
        let report = checked(true, long, 1, |mut stream| async move {
            head(&mut stream).await;
            let _ = stream.write_all(ANSWER).await;
            // Until the client leaves.
            let _ = stream.read_to_end(&mut Vec::new()).await;
        });
        let error = report.await.unwrap_err();
        assert!(matches!(error, CannotCheck::NoTrial { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("within 2.5s, the time of a check"), "{text}");
    }
}
