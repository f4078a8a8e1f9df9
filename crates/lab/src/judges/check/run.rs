//! Runs a whole check: the plain request, the searches, the trials, the report.

use std::sync::Arc;

use tokio::time::timeout_at;
use tokio_util::sync::CancellationToken;

use super::budget::Budget;
use super::cannot_check::CannotCheck;
use super::drain::{Drain, search_bytes, search_time};
use super::engine::TrialOrder;
use super::losses::losses;
use super::plain_advice::ServerTraits;
use super::plan::CheckPlan;
use super::probe::Plain;
use super::report::{CheckReport, CheckSettings, VERSION};
use super::scenarios::selected;
use super::verdict::CheckVerdict;
use super::{client, engine, jobs, probe, reasons, runner};

/// Requests before the trials and beside them, as many as the searches mostly make.
const SEARCH_REQUESTS: u64 = 50;

/// Checks a server; `progress` is called with the number of trials done and of all trials.
///
/// # Errors
/// No server answers a plain request with HTTP/1, no trial could be made, or a connection could not be made.
pub async fn run(
    plan: &CheckPlan,
    progress: impl Fn(u64, u64),
) -> Result<CheckReport, CannotCheck> {
    run_until(plan, &CancellationToken::new(), progress).await
}

/// The same; once `stop` is cancelled, the report is of the trials that have ended.
///
/// # Errors
/// As [`run`], or no trial had ended.
pub async fn run_until(
    plan: &CheckPlan,
    stop: &CancellationToken,
    progress: impl Fn(u64, u64),
) -> Result<CheckReport, CannotCheck> {
    let requests = jobs::requests(plan, &selected(plan)) + SEARCH_REQUESTS;
    run_within(plan, Budget::of(plan, requests), stop, progress).await
}

async fn run_within(
    plan: &CheckPlan,
    budget: Budget,
    stop: &CancellationToken,
    progress: impl Fn(u64, u64),
) -> Result<CheckReport, CannotCheck> {
    let plain = tokio::select! {
        plain = timeout_at(budget.end(), probe::plain(plan)) => plain,
        () = stop.cancelled() => return Err(CannotCheck::Interrupted),
    };
    let plain = plain.unwrap_or_else(|_| {
        let (address, limit) = (plan.target.address.clone(), budget.all());
        Err(CannotCheck::Silent { address, limit })
    });
    run_after_plain(plan, plain?, budget, stop, progress).await
}

/// Everything after the plain request, which was answered with `plain`.
async fn run_after_plain(
    plan: &CheckPlan,
    plain: Plain,
    budget: Budget,
    stop: &CancellationToken,
    progress: impl Fn(u64, u64),
) -> Result<CheckReport, CannotCheck> {
    let (shared, plain) = (Arc::new(plan.clone()), Arc::new(plain));
    let chosen = selected(plan);
    let bytes = tokio::select! {
        bytes = search_bytes(plan, &plain, budget.search_end()) => bytes,
        () = stop.cancelled() => return Err(CannotCheck::Interrupted),
    };
    let (kernel, no_kernel) = match reasons::listen(&plan.target.address) {
        Ok(kernel) => (Some(kernel), None),
        Err(why) => (None, Some(why)),
    };
    let order = TrialOrder {
        plan: &shared,
        scenarios: &chosen,
        plain: &plain,
        unread_bytes: bytes.bound.and_then(|bound| bound.less_than),
        budget,
        stop,
    };
    let trials = engine::run(order, kernel, progress);
    let search = async |end| {
        tokio::select! {
            drain = search_time(&shared, &plain, bytes, end) => drain,
            () = stop.cancelled() => Drain::new(bytes.kind, bytes.bound, None),
        }
    };
    let (drain, (scenarios, outages)) = if plain.one_at_a_time {
        let drain = search(budget.half()).await;
        (drain, trials.await?)
    } else {
        let time = search(budget.last_begin());
        tokio::try_join!(async { Ok(time.await) }, trials)?
    };
    let clients = scenarios.iter().flat_map(|one| &one.clients);
    let made = clients.map(|one| one.counts.trials).sum();
    if made == 0 && stop.is_cancelled() {
        return Err(CannotCheck::Interrupted);
    }
    if made == 0 {
        return Err(CannotCheck::NoTrial {
            address: plan.target.address.clone(),
            limit: budget.all(),
            first_byte: plain.first_byte(),
        });
    }
    let verdict = CheckVerdict::worst(scenarios.iter().map(|one| one.verdict));
    if verdict == CheckVerdict::Loses && !stop.is_cancelled() {
        probe::still_there(plan, made).await?;
    }
    let server = ServerTraits {
        server: plain.server.as_deref(),
        powered_by: plain.powered_by.as_deref(),
        drain: &drain,
    };
    let losses = losses(&scenarios, &server);
    Ok(CheckReport {
        version: VERSION,
        address: plan.target.address.to_string(),
        request: format!("{} {}", plan.method, plan.target.path),
        settings: CheckSettings {
            trials: plan.trials,
            receive_buffer_bytes: client::RECEIVE_BUFFER,
            read_delay_ms: client::READ_DELAY.as_millis() as u64,
            timeout_ms: u64::try_from(plan.timeout.as_millis()).unwrap_or(u64::MAX),
            at_once: runner::at_once(&plain) as u64,
            data_bytes: plan.body.len() as u64,
            played_as: plan.imitated.map(|client| client.name),
        },
        plain: Arc::unwrap_or_clone(plain),
        drain,
        verdict,
        losses,
        scenarios,
        outages,
        interrupted: stop.is_cancelled(),
        baseline: None,
        no_kernel,
        seconds: budget.spent().as_secs_f64(),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::judges::check::drain::DrainKind;
    use crate::shared::target::Target;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::mpsc;

    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

    /// Reads a head, but no body.
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

    fn plan(listener: &TcpListener) -> CheckPlan {
        CheckPlan::new(Target::from(listener.local_addr().unwrap()))
    }

    /// Answers and closes, whatever else comes.
    async fn answer_early(mut stream: TcpStream) {
        head(&mut stream).await;
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 614400\r\n\r\n";
        let _ = stream.write_all(head.as_bytes()).await;
        let _ = stream.write_all(&vec![b'x'; 614_400]).await;
    }

    #[tokio::test]
    async fn trials_of_a_slow_server_take_the_place_of_the_search() {
        let (budget, slow) = (
            Budget::new(Duration::from_secs(5)),
            Duration::from_millis(1100),
        );
        for one_at_a_time in [false, true] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut plan = plan(&listener);
            plan.scenarios = vec!["body-after-gap".to_owned()];
            plan.trials = 2;
            let server = async {
                loop {
                    let serving = tokio::spawn(answer_early(listener.accept().await.unwrap().0));
                    if one_at_a_time {
                        serving.await.unwrap();
                    }
                }
            };
            let plain = Plain::of_a_server_that_takes(slow, one_at_a_time);
            let never = CancellationToken::new();
            let report = tokio::select! {
                () = server => panic!("the server ended"),
                report = run_after_plain(&plan, plain, budget, &never, |_, _| {}) => report.unwrap(),
            };
            assert_eq!(report.verdict, CheckVerdict::Loses, "{report:#?}");
            assert_eq!(report.drain.kind, DrainKind::NotSearched);
        }
    }

    #[tokio::test]
    async fn responses_lost_because_the_server_ended_are_not_counted() {
        /// Connections at once to a server that answers quickly.
        const AT_ONCE: usize = 4;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let plan = CheckPlan {
            trials: 1,
            scenarios: vec!["body-with-head".to_owned()],
            body_sizes: vec![22],
            retry: Duration::ZERO,
            ..plan(&listener)
        };
        let server = async move {
            let (ends, mut trials) = mpsc::channel(AT_ONCE);
            let mut ending = Vec::new();
            // The server ends when as many clients as there are at once have sent a body.
            while ending.len() < AT_ONCE {
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
            error.contains("stopped taking connections after "),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_check_without_a_trial_is_an_error() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut plan = plan(&listener);
        plan.gaps = vec![Duration::from_secs(60)];
        plan.scenarios = vec!["body-after-gap".to_owned()];
        let server = async {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    if head(&mut stream).await.contains("content-length: 0\r\n") {
                        let _ = stream.write_all(ANSWER).await;
                    }
                    // Until the client leaves.
                    let _ = stream.read_to_end(&mut Vec::new()).await;
                });
            }
        };
        let budget = Budget::new(Duration::from_secs(1));
        let never = CancellationToken::new();
        let error = tokio::select! {
            () = server => panic!("the server ended"),
            report = run_within(&plan, budget, &never, |_, _| {}) => report.unwrap_err(),
        };
        assert!(matches!(error, CannotCheck::NoTrial { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("within 2.5s, the time of a check"), "{text}");
    }
}
