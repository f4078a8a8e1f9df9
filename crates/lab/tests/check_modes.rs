//! `rstlab check` against every mode of rstlab-upstream whose verdict is known, and against its bounds.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rstlab_lab::check::{
    self, Bound, Kind, Outcome, Plan, Report, ScenarioReport, Target, Verdict,
};
use rstlab_upstream::{Config, Mode};
use rstlab_witness::Witness;
use support::{Peer, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use Verdict::{Harmless, Loses, Pass};

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
async fn checked(config: Config, plan: impl FnOnce(&mut Plan)) -> Report {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let server = tokio::spawn(rstlab_upstream::run(
        listener,
        config,
        Witness::default(),
        stop.clone(),
    ));
    let mut asked = Plan {
        trials: 6,
        ..Plan::new(Target::from(address))
    };
    plan(&mut asked);
    let report = soon(check::run(&asked, |_, _| {})).await.unwrap();
    stop.cancel();
    soon(server).await.unwrap().unwrap();
    report
}

async fn all_scenarios(mode: Mode) -> Report {
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

fn scenario<'a>(report: &'a Report, name: &str) -> &'a ScenarioReport {
    let mut all = report.scenarios.iter();
    all.find(|one| one.name == name).unwrap()
}

/// Every scenario has the verdict `most`, but for the ones named.
fn assert_verdicts(report: &Report, most: Verdict, but: &[(&str, Verdict)]) {
    for one in &report.scenarios {
        let other = but.iter().find(|(name, _)| *name == one.name);
        let expected = other.map_or(most, |(_, verdict)| *verdict);
        assert_eq!(one.verdict, expected, "{}: {one:#?}", one.name);
        assert!(one.clients.iter().all(|client| client.counts.trials > 0));
    }
}

/// Outcomes of all trials of a scenario, with both clients.
fn count(one: &ScenarioReport, outcome: Outcome) -> u64 {
    let of = |client: &check::ClientReport| client.counts.outcomes.of(outcome);
    one.clients.iter().map(of).sum()
}

#[tokio::test]
async fn lazy_loses_what_comes_later() {
    let report = all_scenarios(Mode::Lazy).await;
    // A small body that comes with the head is read with it; a final answer to Expect spares the body.
    assert_verdicts(&report, Loses, &[("expect-continue", Pass)]);
    assert_eq!(report.verdict, Loses);
    let with_head = scenario(&report, "body-with-head");
    for client in &with_head.clients {
        let verdicts: Vec<_> = client.cases.iter().map(|case| case.verdict).collect();
        assert_eq!(verdicts, [Pass, Loses], "{client:#?}");
    }
    let gap = scenario(&report, "body-after-gap");
    assert!(count(gap, Outcome::TruncatedByReset) > 0, "{gap:#?}");
    assert_eq!(report.drain.kind, Kind::ResetsAtOnce);
    for one in &report.scenarios {
        // A failed write takes the reset out of the socket, and the end that follows looks like a FIN.
        assert_eq!(count(one, Outcome::TruncatedByEof), 0, "{one:#?}");
    }
    let slow = scenario(&report, "body-trickles");
    let [reads_on, stops] = &slow.clients[..] else {
        panic!("two clients");
    };
    let trials = reads_on.counts.trials;
    assert_eq!(
        reads_on.counts.outcomes.of(Outcome::TruncatedByReset),
        trials
    );
    assert_eq!(stops.counts.outcomes.of(Outcome::NoResponseReset), trials);
}

#[tokio::test]
async fn drain_loses_only_with_a_second_request_behind_the_body() {
    let report = all_scenarios(Mode::Drain).await;
    assert_verdicts(&report, Pass, &[("pipelined", Loses)]);
    assert_eq!(report.drain.kind, Kind::ReadsFirst);
}

#[tokio::test]
async fn cap_is_as_drain_and_its_refusals_arrive() {
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
async fn linger_loses_beyond_its_bounds() {
    let report = all_scenarios(Mode::Linger).await;
    let beyond = ["body-large", "body-trickles", "early-answer"];
    assert_verdicts(&report, Pass, &beyond.map(|name| (name, Loses)));
    let bytes = report.drain.bytes.unwrap();
    assert_near(bytes, 65_536, 655);
    assert_near(report.drain.milliseconds.unwrap(), 2000, 200);
}

#[tokio::test]
async fn changed_bounds_are_found() {
    for (bytes, time) in [(10_000, 700), (1_000_000, 3_000)] {
        let mut config = Config {
            mode: Mode::Linger,
            ..Config::default()
        };
        config.linger.bytes = Some(bytes);
        config.linger.time = Duration::from_millis(time);
        let report = checked(config, |plan| {
            plan.scenarios = vec!["expect-continue".to_owned()];
        })
        .await;
        assert_eq!(report.drain.kind, Kind::ReadsOn);
        assert_near(report.drain.bytes.unwrap(), bytes, bytes / 100);
        assert_near(report.drain.milliseconds.unwrap(), time, time / 10);
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
        let mut config = Config {
            mode: Mode::Linger,
            ..Config::default()
        };
        config.linger.bytes = Some(bytes);
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

/// Answers, half-closes, and reads on for so many bytes and so long; if the time was the bound it notes, in
/// milliseconds, just before and just after which it closed.
async fn linger(
    mut stream: TcpStream,
    bytes: usize,
    time: Duration,
    closed: &Mutex<Vec<(u64, u64)>>,
) {
    let answer = support::cut(9, 9);
    if support::read_head(&mut stream).await.is_none() || stream.write_all(&answer).await.is_err() {
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
async fn the_time_is_found_though_few_bytes_are_read() {
    for (bytes, time) in [(1, 1000), (8, 1000), (200, 1500), (10_000, 700)] {
        let closed = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&closed);
        let peer = Peer::start(move |stream, _| {
            let closed = Arc::clone(&noted);
            async move { linger(stream, bytes, Duration::from_millis(time), &closed).await }
        })
        .await;
        let plan = Plan {
            trials: 1,
            scenarios: vec!["expect-continue".to_owned()],
            ..Plan::new(Target::from(peer.address))
        };
        let report = soon(check::run(&plan, |_, _| {})).await.unwrap();
        peer.finish().await;
        let found = report.drain.milliseconds.unwrap();
        let less_than = found.less_than.unwrap();
        // What the server did: on a busy machine it closes later than it wanted to.
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

#[tokio::test]
async fn delay_is_harmless_but_for_a_client_slower_than_it() {
    let report = all_scenarios(Mode::Delay).await;
    let but = [("body-trickles", Loses), ("expect-continue", Pass)];
    assert_verdicts(&report, Harmless, &but);
    assert_eq!(report.drain.kind, Kind::Holds);
}

#[tokio::test]
async fn abort_loses_always() {
    let report = all_scenarios(Mode::Abort).await;
    assert_verdicts(&report, Loses, &[]);
    assert!(!report.plain.whole);
}

#[tokio::test]
async fn truncate_is_the_silent_one() {
    let report = all_scenarios(Mode::Truncate).await;
    assert_verdicts(&report, Loses, &[]);
    for one in &report.scenarios {
        // Half of each response comes.
        let trials: u64 = one.clients.iter().map(|client| client.counts.trials).sum();
        let lost: u64 = one
            .clients
            .iter()
            .map(|client| client.counts.lost_bytes)
            .sum();
        if one.name != "pipelined" {
            assert_eq!(count(one, Outcome::TruncatedByEof), trials, "{one:#?}");
            assert_eq!(lost, trials * 307_200);
        }
    }
}

#[tokio::test]
async fn idle_close_loses_the_next_request() {
    let report = all_scenarios(Mode::IdleClose).await;
    let but = [("pipelined", Loses), ("keep-alive", Loses)];
    assert_verdicts(&report, Pass, &but);
    let next = scenario(&report, "keep-alive");
    assert_eq!(count(next, Outcome::NoResponseReset), 12, "{next:#?}");
}

#[tokio::test]
async fn a_small_response_tells_nothing() {
    let config = Config {
        mode: Mode::Lazy,
        response_bytes: 100,
        ..Config::default()
    };
    let report = checked(config, |plan| {
        plan.scenarios = vec!["body-after-gap".to_owned()];
    })
    .await;
    assert_eq!(report.verdict, Verdict::CannotTell);
    let sentence = &report.scenarios[0].sentence;
    assert!(
        sentence.contains("the response of 100 bytes fits the socket buffer"),
        "{sentence}"
    );
}
