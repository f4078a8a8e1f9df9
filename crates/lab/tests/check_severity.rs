//! How bad `rstlab check` calls a loss: servers of a few lines, each with one fault, and the exit codes of --fail-on.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::time::Duration;

use rstlab_lab::judges::check::{
    self, CheckPlan, CheckReport, ConnectionUse, Model, RequestKind, Severity, Target,
};
use rstlab_tests::{
    Peer, assert_contains, content_length, cut, head_field, read_request, rstlab_output, soon,
    text, try_read_head, words,
};
use rstlab_upstream::{Mode, UpstreamConfig as Config};
use rstlab_witness::{Takers, Witness};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// A whole response that leaves the connection open.
const KEPT: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

async fn checked(peer: Peer, plan: CheckPlan) -> CheckReport {
    let report = soon(check::run(&plan, |_, _| {})).await.unwrap();
    peer.finish().await;
    report
}

fn plan(peer: &Peer, scenarios: &[&str]) -> CheckPlan {
    CheckPlan {
        trials: 4,
        scenarios: scenarios.iter().map(|name| (*name).to_owned()).collect(),
        ..CheckPlan::new(Target::from(peer.address))
    }
}

/// Severity, requests and clients of each loss.
fn found(report: &CheckReport) -> Vec<(Severity, RequestKind, &[Model])> {
    let losses = report.losses.iter();
    losses
        .map(|loss| (loss.severity, loss.requests, &loss.clients[..]))
        .collect()
}

/// A server whose response to some requests is cut by a FIN, whoever reads it.
async fn cutting(is_cut: fn(&str, usize) -> bool) -> Peer {
    Peer::start(move |mut stream, _| async move {
        if let Some((head, length)) = read_request(&mut stream).await {
            let sent = if is_cut(&head, length) { 100 } else { 20_000 };
            let _ = stream.write_all(&cut(20_000, sent)).await;
        }
    })
    .await
}

#[tokio::test]
async fn an_ordinary_client_s_loss_is_critical_up_to_64_kib_and_medium_beyond() {
    let late: &[Model] = &[Model::ReadsOn, Model::StopsAtWriteError];
    let ordinary: &[Model] = &[Model::Ordinary];
    let peer = cutting(|_, length| length == 22).await;
    let asked = plan(&peer, &["body-with-head", "body-large"]);
    let report = checked(peer, asked).await;
    let usual = RequestKind::Usual;
    assert_eq!(
        found(&report),
        [
            (Severity::Critical, usual, ordinary),
            (Severity::High, usual, late)
        ],
        "{report:#?}"
    );
    let shares = report.losses.iter().flat_map(|loss| &loss.shares);
    for share in shares {
        // One of the two sizes.
        assert_eq!(share.lost * 2, share.trials, "{report:#?}");
    }

    let peer = cutting(|_, length| length > 65_536).await;
    let asked = plan(&peer, &["body-with-head", "body-large"]);
    let report = checked(peer, asked).await;
    let all: &[Model] = &[Model::Ordinary, Model::ReadsOn, Model::StopsAtWriteError];
    assert_eq!(
        found(&report),
        [(Severity::Medium, RequestKind::OverBound, all)],
        "{report:#?}"
    );
}

/// Answers as soon as a head has come, and closes when the body comes, without reading a byte of it.
async fn answer_early(mut stream: TcpStream) {
    if stream.write_all(&cut(614_400, 614_400)).await.is_ok() {
        let _ = stream.readable().await;
    }
}

#[tokio::test]
async fn a_late_reader_s_loss_is_high_and_split_into_kept_and_close() {
    let peer = Peer::start(|mut stream, _| async move {
        let Some(head) = try_read_head(&mut stream).await else {
            return;
        };
        if head_field(&head, "connection").is_none() {
            return answer_early(stream).await;
        }
        let mut body = vec![0; content_length(&head)];
        if stream.read_exact(&mut body).await.is_ok() {
            let _ = stream.write_all(&cut(614_400, 614_400)).await;
        }
    })
    .await;
    let plan = CheckPlan {
        trials: 1,
        body_sizes: vec![22],
        // Long enough for a machine that stalls: the ordinary client has the response before the body is sent.
        gaps: vec![Duration::from_secs(3)],
        ..plan(&peer, &["body-after-gap"])
    };
    let report = checked(peer, plan).await;
    let late: &[Model] = &[Model::ReadsOn, Model::StopsAtWriteError];
    assert_eq!(
        found(&report),
        [(Severity::High, RequestKind::Usual, late)],
        "{report:#?}"
    );
    let loss = &report.losses[0];
    let shares = loss.shares.iter();
    let shares: Vec<_> = shares
        .map(|one| (one.connection, one.client, one.lost, one.trials))
        .collect();
    assert_eq!(
        shares,
        [
            (ConnectionUse::Kept, Model::ReadsOn, 1, 1),
            (ConnectionUse::Kept, Model::StopsAtWriteError, 1, 1),
            (ConnectionUse::Close, Model::ReadsOn, 0, 1),
            (ConnectionUse::Close, Model::StopsAtWriteError, 0, 1),
        ]
    );
    assert_contains(&loss.sentence, &["read late", ": 2 of 4."]);
    let proxies = loss.proxies.as_deref().unwrap();
    assert_contains(proxies, &["kept: HAProxy, Envoy"]);
    assert!(!proxies.contains("close"), "{proxies}");
}

#[tokio::test]
async fn the_second_request_s_loss_on_a_kept_connection_is_critical() {
    let peer = Peer::start(|mut stream, _| async move {
        if read_request(&mut stream).await.is_some() && stream.write_all(KEPT).await.is_ok() {
            // The second request is read, and not answered.
            let _ = read_request(&mut stream).await;
        }
    })
    .await;
    let plan = plan(&peer, &["body-with-head", "keep-alive"]);
    let report = checked(peer, plan).await;
    let all: &[Model] = &[Model::Ordinary, Model::ReadsOn, Model::StopsAtWriteError];
    assert_eq!(
        found(&report),
        [(Severity::Critical, RequestKind::Next, all)],
        "{report:#?}"
    );
    let shares = &report.losses[0].shares;
    assert_eq!(shares.len(), all.len(), "{report:#?}");
    for share in shares {
        assert_eq!((share.lost, share.trials), (4, 4), "{share:?}");
    }
}

/// A server that loses the answers to uploads on paths that it does not have.
async fn loses_refusals() -> Peer {
    Peer::start(|mut stream, _| async move {
        let Some(head) = try_read_head(&mut stream).await else {
            return;
        };
        let length = content_length(&head);
        if head.contains("no-such-path") && length > 0 {
            return;
        }
        let mut body = vec![0; length];
        if stream.read_exact(&mut body).await.is_ok() {
            let _ = stream.write_all(&cut(20_000, 20_000)).await;
        }
    })
    .await
}

#[tokio::test]
async fn a_refused_upload_is_medium_and_a_rare_request_is_low() {
    let peer = loses_refusals().await;
    let asked = plan(&peer, &["body-with-head", "early-answer"]);
    let report = checked(peer, asked).await;
    let all: &[Model] = &[Model::Ordinary, Model::ReadsOn, Model::StopsAtWriteError];
    let refused = (Severity::Medium, RequestKind::Refused, all);
    assert_eq!(found(&report), [refused], "{report:#?}");

    let peer = cutting(|head, _| head.contains("HTTP/1.0")).await;
    let asked = plan(&peer, &["body-with-head", "http-1.0"]);
    let report = checked(peer, asked).await;
    let rare = (Severity::Low, RequestKind::Rare, all);
    assert_eq!(found(&report), [rare], "{report:#?}");
}

#[tokio::test]
async fn a_server_without_a_loss_has_no_severity() {
    let peer = cutting(|_, _| false).await;
    let plan = plan(&peer, &["body-with-head", "keep-alive", "early-answer"]);
    let report = checked(peer, plan).await;
    assert_eq!(found(&report), [], "{report:#?}");
    assert!(report.scenarios.iter().all(|one| one.severity.is_none()));
}

/// Checks an upstream with some scenarios of each kind.
async fn upstream(mode: Mode) -> CheckReport {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let config = Config {
        mode,
        ..Config::default()
    };
    let stop = CancellationToken::new();
    let server = tokio::spawn(rstlab_upstream::run(
        listener,
        config.into(),
        Takers::default(),
        Witness::default(),
        stop.clone(),
    ));
    let scenarios = ["body-after-gap", "body-large", "early-answer", "half-close"];
    let asked = CheckPlan {
        trials: 12,
        scenarios: scenarios.map(str::to_owned).into(),
        ..CheckPlan::new(Target::from(address))
    };
    let report = soon(check::run(&asked, |_, _| {})).await.unwrap();
    stop.cancel();
    soon(server).await.unwrap().unwrap();
    report
}

#[tokio::test]
async fn modes_of_the_upstream_have_their_severities() {
    let drain = upstream(Mode::Drain).await;
    assert_eq!(found(&drain), [], "{drain:#?}");
    let linger = upstream(Mode::Linger).await;
    let severities = linger.losses.iter().map(|loss| loss.severity);
    assert!(severities.max() <= Some(Severity::Medium), "{linger:#?}");
    let lazy = upstream(Mode::Lazy).await;
    let severities: Vec<_> = lazy.losses.iter().map(|loss| loss.severity).collect();
    assert!(severities[0] >= Severity::High, "{lazy:#?}");
    assert!(
        severities.is_sorted_by(|one, next| one >= next),
        "{lazy:#?}"
    );
    let kinds: BTreeSet<_> = lazy.losses.iter().map(|loss| loss.requests).collect();
    for kind in [
        RequestKind::Usual,
        RequestKind::OverBound,
        RequestKind::Rare,
    ] {
        assert!(kinds.contains(&kind), "{lazy:#?}");
    }
}

#[tokio::test]
async fn fail_on_is_the_least_severity_that_fails_a_check() {
    for fails_up_to in ["low", "medium", "critical"] {
        for (place, fail_on) in ["reset", "low", "medium", "high", "critical"]
            .into_iter()
            .enumerate()
        {
            let (peer, scenario) = match fails_up_to {
                "low" => (
                    cutting(|head, _| head.contains("HTTP/1.0")).await,
                    "http-1.0",
                ),
                "medium" => (loses_refusals().await, "early-answer"),
                _ => (cutting(|_, length| length > 0).await, "body-with-head"),
            };
            let places = ["low", "medium", "high", "critical"];
            let most = places.iter().position(|one| *one == fails_up_to).unwrap() + 1;
            let url = format!("http://{}/", peer.address);
            let flag = format!("--fail-on={fail_on}");
            let args = ["check", &url, &flag, "--trials=2", "--scenario", scenario];
            let output = rstlab_output(&args).await;
            let printed = words(text(&output.stdout));
            let code = i32::from(place <= most);
            assert_eq!(
                output.status.code(),
                Some(code),
                "{fails_up_to} {fail_on}: {printed}"
            );
            let begins = printed
                .to_lowercase()
                .starts_with(&format!("{fails_up_to}: "));
            assert!(begins, "{printed}");
            let proof = format!("Proof: rstlab check {url} --scenario {scenario} --baseline");
            assert_contains(&printed, &["What to do: ", &proof]);
            peer.finish().await;
        }
    }
}

#[tokio::test]
async fn what_is_new_since_a_baseline_fails_only_if_it_is_as_bad_as_fail_on_says() {
    let directory = tempfile::tempdir().unwrap();
    let before = directory.path().join("before.json");
    let before = before.to_str().unwrap();
    let never: fn(&str, usize) -> bool = |_, _| false;
    let http_1_0: fn(&str, usize) -> bool = |head, _| head.contains("HTTP/1.0");
    for (is_cut, more, code) in [
        (never, ["--json", before], 0),
        (http_1_0, ["--baseline", before], 0),
        (
            http_1_0,
            ["--fail-on=low", &format!("--baseline={before}")],
            1,
        ),
    ] {
        let peer = cutting(is_cut).await;
        let url = format!("http://{}/", peer.address);
        let args = ["check", &url, "--trials=2", "--scenario=http-1.0"];
        let output = rstlab_output(&[&args[..], &more].concat()).await;
        let printed = words(text(&output.stdout));
        assert_eq!(output.status.code(), Some(code), "{more:?}: {printed}");
        let is_new = printed.starts_with("Something got worse");
        assert_eq!(is_new, more[0] != "--json", "{printed}");
        peer.finish().await;
    }
}
