//! `rstlab check` of rstlab-upstream: the verdict on each mode, and the bounds of `linger`.

#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rstlab_lab::judges::check::{
    self, Bound, CheckPlan, CheckReport, CheckVerdict, DrainKind, Model, ScenarioReport, Target,
    TrialOutcome,
};
use rstlab_tests::{Peer, cut, soon, try_read_head};
use rstlab_upstream::{Mode, UpstreamConfig as Config};
use rstlab_witness::{Takers, Witness};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use CheckVerdict::{Harmless, Loses, Pass};

/// All scenarios, in the order of a report.
const NAMES: [&str; 12] = [
    "body-with-head",
    "body-after-gap",
    "body-large",
    "body-trickles",
    "body-chunked",
    "get-with-body",
    "pipelined",
    "keep-alive",
    "expect-continue",
    "http-1.0",
    "early-answer",
    "half-close",
];

/// Checks an upstream; `plan` changes the plan.
async fn checked(config: Config, plan: impl FnOnce(&mut CheckPlan)) -> CheckReport {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let server = tokio::spawn(rstlab_upstream::run(
        listener,
        config.into(),
        Takers::default(),
        Witness::default(),
        stop.clone(),
    ));
    let mut asked = CheckPlan {
        trials: 6,
        ..CheckPlan::new(Target::from(address))
    };
    plan(&mut asked);
    let report = soon(check::run(&asked, |_, _| {})).await.unwrap();
    stop.cancel();
    soon(server).await.unwrap().unwrap();
    report
}

async fn all_scenarios(mode: Mode) -> CheckReport {
    let config = Config {
        mode,
        ..Config::default()
    };
    let report = checked(config, |_| {}).await;
    let names: Vec<_> = report.scenarios.iter().map(|one| one.name).collect();
    assert_eq!(names, NAMES);
    assert_eq!(check::scenario_names().collect::<Vec<_>>(), NAMES);
    report
}

fn scenario<'a>(report: &'a CheckReport, name: &str) -> &'a ScenarioReport {
    let mut all = report.scenarios.iter();
    all.find(|one| one.name == name).unwrap()
}

/// Checks that each scenario has the verdict `most`, except for the scenarios in `but`.
fn assert_verdicts(report: &CheckReport, most: CheckVerdict, but: &[(&str, CheckVerdict)]) {
    for one in &report.scenarios {
        let other = but.iter().find(|(name, _)| *name == one.name);
        let expected = other.map_or(most, |(_, verdict)| *verdict);
        assert_eq!(one.verdict, expected, "{}: {one:#?}", one.name);
        assert!(one.clients.iter().all(|client| client.counts.trials > 0));
    }
}

/// How many trials of a scenario, of all clients, had this outcome.
fn count(one: &ScenarioReport, outcome: TrialOutcome) -> u64 {
    let of = |client: &check::ClientReport| client.counts.outcomes.of(outcome);
    one.clients.iter().map(of).sum()
}

#[tokio::test]
async fn lazy_loses_responses_if_the_body_comes_after_the_head() {
    let report = all_scenarios(Mode::Lazy).await;
    // A small body that comes with the head is read with the head. After a final answer to Expect no body is sent.
    assert_verdicts(&report, Loses, &[("expect-continue", Pass)]);
    assert_eq!(report.verdict, Loses);
    let with_head = scenario(&report, "body-with-head");
    for client in with_head
        .clients
        .iter()
        .filter(|one| one.client.reads_late())
    {
        let verdicts: Vec<_> = client.cases.iter().map(|case| case.verdict).collect();
        assert_eq!(verdicts, [Pass, Loses], "{client:#?}");
    }
    let gap = scenario(&report, "body-after-gap");
    assert!(count(gap, TrialOutcome::TruncatedByReset) > 0, "{gap:#?}");
    assert_eq!(report.drain.kind, DrainKind::ResetsAtOnce);
    for one in &report.scenarios {
        // A failed write takes the reset out of the socket, and the end that follows looks like a FIN.
        assert_eq!(count(one, TrialOutcome::TruncatedByEof), 0, "{one:#?}");
    }
    for client in &scenario(&report, "body-trickles").clients {
        let outcome = match client.client {
            // It has read the response before the body causes a reset, if this machine lets it.
            Model::Ordinary => continue,
            Model::ReadsOn => TrialOutcome::TruncatedByReset,
            Model::StopsAtWriteError => TrialOutcome::NoResponseReset,
        };
        assert_eq!(client.counts.outcomes.of(outcome), client.counts.trials);
    }
}

#[tokio::test]
async fn drain_loses_only_with_a_second_request_behind_the_body() {
    let report = all_scenarios(Mode::Drain).await;
    assert_verdicts(&report, Pass, &[("pipelined", Loses)]);
    assert_eq!(report.drain.kind, DrainKind::ReadsFirst);
}

#[tokio::test]
async fn cap_has_the_verdicts_of_drain_and_its_refusals_arrive() {
    let config = Config {
        mode: Mode::Cap,
        max_body: 1000,
        ..Config::default()
    };
    let report = checked(config, |_| {}).await;
    assert_verdicts(&report, Pass, &[("pipelined", Loses)]);
    let over = &scenario(&report, "body-large").clients[0];
    assert_eq!((over.statuses[0].status, over.statuses[0].count), (413, 6));
}

#[tokio::test]
async fn linger_loses_responses_beyond_its_bounds() {
    let report = all_scenarios(Mode::Linger).await;
    let beyond = ["body-large", "body-trickles", "early-answer"];
    assert_verdicts(&report, Pass, &beyond.map(|name| (name, Loses)));
    let bytes = report.drain.bytes.unwrap();
    assert_near(bytes, 65_536, 655);
    assert_time(report.drain.milliseconds.unwrap(), 2000);
}

#[tokio::test]
async fn changed_bounds_of_linger_are_found() {
    for (bytes, time) in [(10_000, 700), (1_000_000, 3_000)] {
        let config = Config {
            mode: Mode::Linger,
            linger_bytes: bytes,
            linger_timeout: Duration::from_millis(time),
            ..Config::default()
        };
        let report = checked(config, |plan| {
            plan.scenarios = vec!["expect-continue".to_owned()];
        })
        .await;
        assert_eq!(report.drain.kind, DrainKind::ReadsOn);
        assert_near(report.drain.bytes.unwrap(), bytes, bytes / 100);
        assert_time(report.drain.milliseconds.unwrap(), time);
    }
}

#[tokio::test]
async fn one_trial_tries_every_size_and_gap() {
    let one_second = Duration::from_secs(1);
    for (bytes, name, gaps) in [
        (100_000, "body-large", vec![]),
        (
            30_000,
            "body-after-gap",
            vec![one_second / 2000, one_second],
        ),
    ] {
        let config = Config {
            mode: Mode::Linger,
            linger_bytes: bytes,
            ..Config::default()
        };
        let report = checked(config, |plan| {
            plan.scenarios = vec![name.to_owned()];
            plan.gaps = gaps;
            plan.trials = 1;
        })
        .await;
        // Not at the smallest size, which is within the bound.
        assert_eq!(report.verdict, Loses, "{report:#?}");
        for client in &report.scenarios[0].clients {
            assert!(
                client.cases.iter().all(|case| case.counts.trials == 1),
                "{client:#?}"
            );
            assert_eq!(client.cases[0].verdict, Pass);
        }
    }
}

/// Answers, half-closes, and reads on until `bytes` have come or `time` is up. If the time was up first, it notes the
/// milliseconds from its answer to just before and to just after its close.
async fn linger(
    mut stream: TcpStream,
    bytes: usize,
    time: Duration,
    closed: &Mutex<Vec<(u64, u64)>>,
) {
    let answer = cut(9, 9);
    if try_read_head(&mut stream).await.is_none() || stream.write_all(&answer).await.is_err() {
        return;
    }
    let answered = Instant::now();
    let _ = stream.shutdown().await;
    let mut body = vec![0; bytes];
    if timeout(time, stream.read_exact(&mut body)).await.is_err() {
        let now = || answered.elapsed().as_millis() as u64;
        let before = now();
        drop(stream);
        closed.lock().unwrap().push((before, now()));
    }
}

#[tokio::test]
async fn the_time_bound_is_found_if_few_bytes_are_read() {
    for (bytes, time) in [(1, 1000), (8, 1000), (200, 1500), (10_000, 700)] {
        let closed = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&closed);
        let peer = Peer::start(move |stream, _| {
            let closed = Arc::clone(&noted);
            async move { linger(stream, bytes, Duration::from_millis(time), &closed).await }
        })
        .await;
        let plan = CheckPlan {
            trials: 1,
            scenarios: vec!["expect-continue".to_owned()],
            ..CheckPlan::new(Target::from(peer.address))
        };
        let report = soon(check::run(&plan, |_, _| {})).await.unwrap();
        peer.finish().await;
        let found = report.drain.milliseconds.unwrap();
        let less_than = found.less_than.unwrap();
        // The times at which the server closed: on a busy machine they are later than planned.
        let closed = closed.lock().unwrap();
        let soonest = *closed.iter().map(|(before, _)| before).min().unwrap();
        let latest = *closed.iter().map(|(_, after)| after).max().unwrap();
        let what = format!("{bytes} B: {found:?}, closed after {soonest} to {latest} ms");
        assert!(found.at_least <= latest && soonest < less_than, "{what}");
        assert!(less_than - found.at_least <= time / 4, "{what}");
    }
}

fn assert_near(found: Bound, expected: u64, most: u64) {
    let less_than = found.less_than.unwrap();
    assert!(found.at_least < less_than, "{found:?}");
    for edge in [found.at_least, less_than] {
        assert!(edge.abs_diff(expected) <= most, "{found:?}, not {expected}");
    }
}

/// A server never closes before its time. A busy one closes later:
/// `the_time_bound_is_found_if_few_bytes_are_read` compares with the times at which the server did close.
fn assert_time(found: Bound, expected: u64) {
    let less_than = found.less_than.unwrap();
    assert!(found.at_least < less_than, "{found:?}");
    assert!(
        found.at_least >= expected / 2 && less_than > expected,
        "{found:?}, not {expected} ms"
    );
}

#[tokio::test]
async fn delay_is_harmless_except_for_a_client_slower_than_the_delay() {
    let report = all_scenarios(Mode::Delay).await;
    let but = [("body-trickles", Loses), ("expect-continue", Pass)];
    assert_verdicts(&report, Harmless, &but);
    assert_eq!(report.drain.kind, DrainKind::Holds);
}

#[tokio::test]
async fn abort_loses_responses_in_every_scenario() {
    let report = all_scenarios(Mode::Abort).await;
    assert_verdicts(&report, Loses, &[]);
}

#[tokio::test]
async fn truncate_cuts_every_response_without_a_reset() {
    let report = all_scenarios(Mode::Truncate).await;
    assert_verdicts(&report, Loses, &[]);
    assert!(!report.plain.whole);
    for one in &report.scenarios {
        // Half of each response comes.
        let trials: u64 = one.clients.iter().map(|client| client.counts.trials).sum();
        let lost = one.clients.iter().map(|client| client.counts.lost_bytes);
        if one.name != "pipelined" {
            assert_eq!(count(one, TrialOutcome::TruncatedByEof), trials, "{one:#?}");
            assert_eq!(lost.sum::<u64>(), trials * 307_200);
        }
    }
}

#[tokio::test]
async fn idle_close_loses_the_next_request() {
    let report = all_scenarios(Mode::IdleClose).await;
    let but = [("pipelined", Loses), ("keep-alive", Loses)];
    assert_verdicts(&report, Pass, &but);
    let next = scenario(&report, "keep-alive");
    assert_eq!(count(next, TrialOutcome::NoResponseReset), 18, "{next:#?}");
}

#[tokio::test]
async fn a_response_that_fits_the_socket_buffer_gives_no_verdict() {
    let config = Config {
        mode: Mode::Lazy,
        response_bytes: 100,
        ..Config::default()
    };
    let report = checked(config, |plan| {
        plan.scenarios = vec!["body-after-gap".to_owned()];
    })
    .await;
    assert_eq!(report.verdict, CheckVerdict::CannotTell);
    let sentence = &report.scenarios[0].sentence;
    assert!(
        sentence.contains("the response of 100 bytes fits the socket buffer"),
        "{sentence}"
    );
}
