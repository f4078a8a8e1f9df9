//! `rstlab check` of servers of a few lines, each with one fault: the verdict is about this fault and nothing else.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use rstlab_lab::judges::check::{
    self, CannotCheck, CheckPlan, CheckReport, CheckVerdict, ClientReport, ConnectionUse,
    DrainKind, Model, Target, TrialOutcome,
};
use rstlab_tests::{
    Peer, assert_contains, content_length, cut, head_field, read_request, soon, try_read_head,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;

const MIB: usize = 1024 * 1024;

fn plan(peer: &Peer, scenarios: &[&str]) -> CheckPlan {
    CheckPlan {
        trials: 8,
        scenarios: scenarios.iter().map(|name| (*name).to_owned()).collect(),
        ..CheckPlan::new(Target::from(peer.address))
    }
}

async fn check_as(peer: Peer, plan: &CheckPlan) -> Result<CheckReport, CannotCheck> {
    let report = soon(check::run(plan, |_, _| {})).await;
    peer.finish().await;
    report
}

fn clients(report: &CheckReport) -> impl Iterator<Item = &ClientReport> {
    report.scenarios.iter().flat_map(|one| &one.clients)
}

/// A response without a body that ends its connection.
fn empty(status: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}

/// Answers as soon as a head has come, and closes when the body comes, without reading a byte of it.
async fn answer_early(mut stream: TcpStream) {
    if stream.write_all(&cut(614_400, 614_400)).await.is_ok() {
        let _ = stream.readable().await;
    }
}

#[tokio::test]
async fn a_server_that_answers_429_after_the_30th_request_ends_the_check_with_a_hint() {
    let peer = Peer::start(|mut stream, number| async move {
        let status = if number < 30 {
            "200 OK"
        } else {
            "429 Too Many Requests"
        };
        if read_request(&mut stream).await.is_some() {
            let _ = stream.write_all(empty(status).as_bytes()).await;
        }
    })
    .await;
    let plan = CheckPlan {
        trials: 50,
        ..plan(&peer, &["body-with-head", "half-close"])
    };
    let error = check_as(peer, &plan).await.unwrap_err();
    assert!(matches!(error, CannotCheck::TurnedAway { .. }), "{error}");
    assert_contains(&error.to_string(), &["requests with 429", "--rate"]);
}

#[tokio::test]
async fn a_server_that_wants_credentials_cannot_be_checked_unless_401_is_expected() {
    let serve = |mut stream: TcpStream, _| async move {
        if read_request(&mut stream).await.is_some() {
            let _ = stream.write_all(empty("401 Unauthorized").as_bytes()).await;
        }
    };
    let peer = Peer::start(serve).await;
    let asked = plan(&peer, &["body-with-head"]);
    let error = check_as(peer, &asked).await.unwrap_err().to_string();
    assert_contains(&error, &["1 of 1 requests with 401", "--header"]);
    let peer = Peer::start(serve).await;
    let asked = CheckPlan {
        expected_statuses: vec![401],
        ..plan(&peer, &["body-with-head"])
    };
    let report = check_as(peer, &asked).await.unwrap();
    assert_eq!(report.verdict, CheckVerdict::Pass, "{report:#?}");
}

#[tokio::test]
async fn a_502_in_place_of_the_answer_is_a_lost_response_and_a_413_is_named() {
    for (status, expected, verdict) in [
        ("502 Bad Gateway", vec![], CheckVerdict::Loses),
        ("502 Bad Gateway", vec![200, 502], CheckVerdict::Pass),
        ("413 Content Too Large", vec![], CheckVerdict::Pass),
    ] {
        let peer = Peer::start(move |mut stream, _| async move {
            if let Some((_, length)) = read_request(&mut stream).await {
                let status = if length > 1000 { status } else { "200 OK" };
                let _ = stream.write_all(empty(status).as_bytes()).await;
            }
        })
        .await;
        let plan = CheckPlan {
            expected_statuses: expected.clone(),
            ..plan(&peer, &["body-with-head"])
        };
        let report = check_as(peer, &plan).await.unwrap();
        assert_eq!(report.verdict, verdict, "{report:#?}");
        let sentence = &report.scenarios[0].sentence;
        let is_named = sentence.contains(&format!("expected: {} (24)", &status[..3]));
        assert_eq!(is_named, expected.is_empty(), "{sentence}");
        for client in clients(&report) {
            // One of the two sizes.
            let lost = if verdict == CheckVerdict::Loses { 4 } else { 0 };
            assert_eq!(client.counts.outcomes.of(TrialOutcome::GatewayError), lost);
        }
    }
}

#[tokio::test]
async fn a_server_that_loses_on_kept_connections_only_is_told_from_one_that_always_loses() {
    let peer = Peer::start(|mut stream, _| async move {
        let Some(head) = try_read_head(&mut stream).await else {
            return;
        };
        if head_field(&head, "connection").is_none() {
            return answer_early(stream).await;
        }
        let mut body = vec![0; content_length(&head).min(4 * MIB)];
        if stream.read_exact(&mut body).await.is_ok() {
            let _ = stream.write_all(&cut(614_400, 614_400)).await;
        }
    })
    .await;
    let plan = plan(&peer, &["body-after-gap", "body-large"]);
    let report = check_as(peer, &plan).await.unwrap();
    for scenario in &report.scenarios {
        for client in scenario
            .clients
            .iter()
            .filter(|one| one.client.reads_late())
        {
            let expected = match client.connection {
                ConnectionUse::Kept => CheckVerdict::Loses,
                ConnectionUse::Close => CheckVerdict::Pass,
            };
            assert_eq!(client.verdict, expected, "{client:#?}");
        }
        let sentence = &scenario.sentence;
        assert_contains(sentence, &["(kept)"]);
        assert!(!sentence.contains("(close)"), "{sentence}");
    }
}

#[tokio::test]
async fn a_client_that_reads_at_once_has_the_response_before_its_body_causes_a_reset() {
    let peer = Peer::start(|mut stream, _| async move {
        if try_read_head(&mut stream).await.is_some() {
            answer_early(stream).await;
        }
    })
    .await;
    let plan = CheckPlan {
        trials: 1,
        body_sizes: vec![22],
        // Long enough for a machine that stalls.
        gaps: vec![Duration::from_secs(3)],
        ..plan(&peer, &["body-after-gap"])
    };
    let report = check_as(peer, &plan).await.unwrap();
    for client in clients(&report) {
        let expected = match client.client {
            Model::Ordinary => CheckVerdict::Pass,
            Model::ReadsOn | Model::StopsAtWriteError => CheckVerdict::Loses,
        };
        assert_eq!(client.verdict, expected, "{client:#?}");
    }
}

#[tokio::test]
async fn a_server_that_reads_2_mib_after_its_fin_and_then_resets_is_found() {
    for wait in [Duration::ZERO, Duration::from_secs(1)] {
        let peer = Peer::start(move |mut stream, _| async move {
            if try_read_head(&mut stream).await.is_none()
                || stream.write_all(&cut(614_400, 614_400)).await.is_err()
            {
                return;
            }
            let _ = stream.shutdown().await;
            if stream.read_exact(&mut vec![0; 2 * MIB]).await.is_ok() {
                // Tomcat, too, closes within a second.
                sleep(wait).await;
            }
        })
        .await;
        let plan = plan(&peer, &["body-large"]);
        let report = check_as(peer, &plan).await.unwrap();
        let found = &report.drain;
        assert_eq!(found.kind, DrainKind::ReadsOn, "{found:?}");
        let bytes = found.bytes.unwrap();
        let less_than = bytes.less_than.unwrap();
        assert!(bytes.at_least >= 2 * MIB as u64, "{found:?}");
        assert!(less_than <= 16 * MIB as u64, "{found:?}");
        let is_found = [CheckVerdict::Harmless, CheckVerdict::Loses].contains(&report.verdict);
        assert!(is_found, "{report:#?}");
    }
}

#[tokio::test]
async fn a_server_that_is_restarted_in_between_loses_nothing_by_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let mut listener = listener;
        for most in [60, usize::MAX] {
            // The end of the set ends its connections.
            let mut connections = JoinSet::new();
            for _ in 0..most {
                let (mut stream, _) = listener.accept().await.unwrap();
                connections.spawn(async move {
                    if read_request(&mut stream).await.is_some() {
                        let _ = stream.write_all(&cut(9, 9)).await;
                    }
                });
            }
            drop((connections, listener));
            sleep(Duration::from_millis(300)).await;
            listener = TcpListener::bind(address).await.unwrap();
        }
    });
    let plan = CheckPlan {
        scenarios: vec!["body-with-head".to_owned(), "half-close".to_owned()],
        // Long enough for a machine that stalls.
        retry: Duration::from_secs(30),
        ..CheckPlan::new(Target::from(address))
    };
    let report = soon(check::run(&plan, |_, _| {})).await.unwrap();
    server.abort();
    assert_eq!(report.verdict, CheckVerdict::Pass, "{report:#?}");
    assert_eq!(report.outages.count, 1, "{report:#?}");
    let trials: u64 = clients(&report).map(|one| one.counts.trials).sum();
    assert_eq!(trials + report.outages.trials_left_out, 12 * 50);
}
