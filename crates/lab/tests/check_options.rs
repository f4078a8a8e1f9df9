//! `rstlab check` with options: the requests that reach the server, where they go, and what the report says first.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::Output;
use std::sync::{Arc, Mutex};

use rstlab_tests::{
    Peer, assert_contains, check_schema, content_length, rstlab_output, text, try_read_head, words,
};
use rstlab_upstream::{Mode, UpstreamConfig as Config};
use rstlab_witness::{Takers, Witness};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

async fn check(args: &[&str]) -> Output {
    rstlab_output(&[&["check"], args].concat()).await
}

/// An upstream on a free port; stopped when the token is dropped.
async fn upstream(mode: Mode) -> (String, DropGuard) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/path", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    let config = Config {
        mode,
        ..Config::default()
    };
    tokio::spawn(rstlab_upstream::run(
        listener,
        config.into(),
        Takers::default(),
        Witness::default(),
        stop.clone(),
    ));
    (url, stop.drop_guard())
}

/// Requests as they reached a server: the head, and the body as text.
type Requests = Arc<Mutex<Vec<(String, String)>>>;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";

/// A server that reads each request to its end, and closes after its answer.
async fn reader(answer: &str) -> (Peer, Requests) {
    let answer: Arc<str> = answer.into();
    let requests = Requests::default();
    let seen = Arc::clone(&requests);
    let peer = Peer::start(move |mut stream, _| {
        let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
        async move {
            if let Some(head) = try_read_head(&mut stream).await {
                let mut body = vec![0; content_length(&head)];
                // The searches announce a body and leave.
                if stream.read_exact(&mut body).await.is_err() {
                    return;
                }
                let body = String::from_utf8(body).unwrap();
                seen.lock().unwrap().push((head, body));
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        }
    })
    .await;
    (peer, requests)
}

fn report(file: &Path) -> Value {
    let report = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    check_schema("check", &report).unwrap();
    report
}

const QUICK: [&str; 4] = ["--trials=8", "--gaps=2ms", "--scenario", "body-after-gap"];

#[tokio::test]
async fn a_baseline_says_what_is_fixed_still_there_and_new() {
    // Every client loses the end of a response that ends before its announced length.
    let cut = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\ncut";
    let [(cuts, _), (answers, _)] = [reader(cut).await, reader(OK).await];
    let [cuts_url, answers_url] = [&cuts, &answers].map(|one| format!("http://{}/", one.address));
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (bad, good, after) = (path("bad"), path("good"), path("after"));
    for (url, file, code) in [(&cuts_url, &bad, 1), (&answers_url, &good, 0)] {
        let files = [url.as_str(), "--json", file];
        let output = check(&[&files[..], &QUICK].concat()).await;
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert_eq!(report(file.as_ref())["baseline"], Value::Null);
    }
    let still = "Nothing got worse than in the baseline: 0 fixed, 6 still there, 0 new.";
    let fixed = "Nothing got worse than in the baseline: 6 fixed, 0 still there, 0 new.";
    let new = "Something got worse than in the baseline: 0 fixed, 0 still there, 6 new.";
    for (url, before, code, says, change) in [
        (&cuts_url, &bad, 0, still, "still-there"),
        (&answers_url, &bad, 0, fixed, "fixed"),
        (&cuts_url, &good, 1, new, "new"),
    ] {
        let (junit, markdown) = (path("junit"), path("markdown"));
        let files = ["--baseline", before, "--json", &after, "--junit", &junit];
        let files = [&[url.as_str(), "--markdown", &markdown], &files[..]].concat();
        let output = check(&[&files[..], &QUICK].concat()).await;
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        let stdout = words(text(&output.stdout));
        assert!(stdout.starts_with(says), "{stdout}");
        assert!(fs::read_to_string(markdown).unwrap().contains(says));
        let failures = format!("failures=\"{code}\"");
        assert!(fs::read_to_string(junit).unwrap().contains(&failures));
        let comparison = &report(after.as_ref())["baseline"];
        let findings = comparison["findings"].as_array().unwrap();
        let changes: Vec<_> = findings.iter().map(|one| &one["change"]).collect();
        assert_eq!(changes, [change; 6], "{comparison:#}");
        // The other server is at another address: the user may have taken the wrong file.
        let notes = comparison["notes"].as_array().unwrap().len();
        assert_eq!(notes, usize::from(change != "still-there"), "{stdout}");
    }
    let without = [
        answers_url.as_str(),
        "--baseline",
        &bad,
        "--scenario",
        "body-with-head",
    ];
    let output = check(&without).await;
    let stdout = words(text(&output.stdout));
    assert_contains(&stdout, &["0 fixed, 0 still there, 0 new, 6 not told."]);
    cuts.finish().await;
    answers.finish().await;
}

#[tokio::test]
async fn a_file_that_is_no_baseline_ends_the_check_before_it_begins() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("before.json");
    fs::write(&file, r#"{"address": "127.0.0.1:80"}"#).unwrap();
    let file = file.to_str().unwrap();
    for (name, part) in [
        (file, "make a new one with"),
        ("/nowhere", "cannot read /nowhere"),
    ] {
        // Nothing listens there.
        let output = check(&["http://127.0.0.1:9/", "--baseline", name]).await;
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert_contains(text(&output.stderr), &[part]);
    }
}

#[tokio::test]
async fn requests_are_those_of_curl_with_the_same_options() {
    let (peer, requests) = reader(OK).await;
    let url = format!("http://app.test:{}/form", peer.address.port());
    let host = format!("Host: app.test:{}\r\n", peer.address.port());
    let resolve = format!("app.test:{}:127.0.0.1", peer.address.port());
    let data = "{\"a\":1}";
    let options = [
        "--user=a:b",
        "--content-type=application/json",
        "--path-404=/up",
    ];
    let more = [
        "--resolve",
        &resolve,
        "--data",
        data,
        "--trials=1",
        "--scenario",
    ];
    let scenarios = [
        "body-with-head",
        "body-trickles",
        "body-large",
        "early-answer",
    ];
    let args = [&[url.as_str()], &options[..], &more, &scenarios].concat();
    let output = check(&args).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_contains(
        &words(text(&output.stdout)),
        &["with the given body of 7 bytes is answered with 200"],
    );
    peer.finish().await;
    let requests = requests.lock().unwrap();
    assert_eq!(requests[0].1, data, "the plain request has the body");
    for (head, body) in requests.iter() {
        let fields = [
            "authorization: Basic YTpi\r\n",
            "content-type: application/json\r\n",
        ];
        assert_contains(head, &fields);
        assert_contains(head, &[&host]);
        if !body.is_empty() {
            assert_eq!(body.trim_end_matches(' '), data, "{head}");
        }
    }
    let lengths = |path: &str| {
        let all = requests.iter().filter(|(head, _)| head.contains(path));
        let mut all: Vec<_> = all.map(|(_, body)| body.len()).collect();
        all.sort_unstable();
        all.dedup();
        all
    };
    assert_contains_all(&lengths("POST /form HTTP/1.1"), &[7, 50, 65_537, 2_097_153]);
    assert_eq!(lengths("POST /up HTTP/1.1"), [0, 1_000_000, 5_000_000]);
}

#[track_caller]
fn assert_contains_all(all: &[usize], wanted: &[usize]) {
    for one in wanted {
        assert!(all.contains(one), "{one} is missing in {all:?}");
    }
}

#[tokio::test]
async fn http_1_0_leaves_out_what_needs_http_1_1() {
    let (peer, requests) = reader(OK).await;
    let elsewhere = format!("::127.0.0.1:{}", peer.address.port());
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("report");
    let url = ["http://app.test/", "--connect-to", &elsewhere, "--http1.0"];
    let skip = ["--skip", "body-trickles", "half-close"];
    let args = [
        &url[..],
        &["--trials=1", "--json", file.to_str().unwrap()],
        &skip,
    ]
    .concat();
    let output = check(&args).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    peer.finish().await;
    for (head, _) in requests.lock().unwrap().iter() {
        assert_contains(head, &[" HTTP/1.0\r\n", "Host: app.test\r\n"]);
        assert!(!head.contains("Transfer-Encoding"), "{head}");
    }
    let report = report(&file);
    let names = report["scenarios"].as_array().unwrap().iter();
    let names: Vec<_> = names.map(|one| one["name"].as_str().unwrap()).collect();
    let left = [
        "body-with-head",
        "body-after-gap",
        "body-large",
        "get-with-body",
        "http-1.0",
        "early-answer",
    ];
    assert_eq!(names, left);

    let output = check(&["http://h/", "--http1.0", "--scenario", "pipelined"]).await;
    assert_eq!(output.status.code(), Some(2));
    assert_contains(
        text(&output.stderr),
        &["at least one scenario has to be left"],
    );
}

#[tokio::test]
async fn the_list_names_each_scenario_with_its_rule() {
    let output = check(&["--list"]).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let list = text(&output.stdout);
    assert_eq!(list.lines().count(), 1 + 12, "{list}");
    assert_contains(
        &words(list),
        &["keep-alive the next request on the kept connection RFC 9112 §9.3"],
    );
}

#[tokio::test]
async fn the_first_line_says_what_to_ask_for() {
    for (answer, part) in [
        (
            "302 Found\r\nLocation: /login\r\nContent-Length: 0",
            "302 and 0 bytes. This is a redirect to /login: check the URL",
        ),
        (
            "404 Not Found\r\nContent-Length: 0",
            "404 and 0 bytes. The server has no such path",
        ),
        (
            "200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 0",
            "--header 'Accept-Encoding: identity'",
        ),
        (
            "200 OK\r\nContent-Length: 0",
            "A response of 0 bytes fits into the client's socket, where no reset can take it: ask for a path with more than 16,384 bytes.",
        ),
    ] {
        let answer = format!("HTTP/1.1 {answer}\r\nConnection: close\r\n\r\n");
        let peer = reader(&answer).await.0;
        let url = format!("http://{}/", peer.address);
        let output = check(&[&[url.as_str()], &QUICK[..]].concat()).await;
        let stdout = words(text(&output.stdout));
        let first = stdout.split("It took").next().unwrap();
        assert_contains(first, &[part]);
        peer.finish().await;
    }
}

#[tokio::test]
async fn a_rate_holds_requests_back_and_a_time_ends_the_check() {
    let (url, _stop) = upstream(Mode::Drain).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("report");
    let json = ["--json", file.to_str().unwrap(), "--quiet"];
    let trials = |report: &Value| {
        let clients = report["scenarios"][0]["clients"].as_array().unwrap();
        let trials = clients.iter().map(|one| &one["counts"]["trials"]);
        trials.map(|trials| trials.as_u64().unwrap()).sum::<u64>()
    };
    let paced = ["--rate=100", "--trials=50", "--scenario", "keep-alive"];
    let output = check(&[&[url.as_str()], &json[..], &paced].concat()).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let paced = report(&file);
    assert_eq!(trials(&paced), 150);
    // Two requests a trial.
    assert!(paced["seconds"].as_f64().unwrap() >= 2.99, "{paced:#}");

    let ended = [
        "--max-time=4s",
        "--trials=5000",
        "--gaps=100ms",
        "--scenario",
        "body-after-gap",
    ];
    let output = check(&[&[url.as_str()], &json[..], &ended].concat()).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let trials = trials(&report(&file));
    assert!((1..10_000).contains(&trials), "{trials}");
}

#[tokio::test]
async fn reports_are_colored_on_a_terminal_or_if_asked_for() {
    let (url, _stop) = upstream(Mode::Lazy).await;
    let load = ["load", &url, "--requests=1"];
    let check = [&["check", &url], &QUICK[..]].concat();
    for (command, word) in [
        (&check[..], "\u{1b}[1m\u{1b}[31mloses\u{1b}[0m"),
        (&load, "\u{1b}[32m  whole "),
    ] {
        for (color, is_on) in [("always", true), ("never", false), ("auto", false)] {
            let output = rstlab_output(&[&["--color", color], command].concat()).await;
            let stdout = text(&output.stdout);
            assert_eq!(stdout.contains(word), is_on, "{color}: {stdout}");
            assert_eq!(stdout.contains('\u{1b}'), is_on, "{color}: {stdout}");
        }
    }
}

#[tokio::test]
async fn bad_options_are_all_named() {
    let output = check(&[
        "http://h/",
        "--user=name",
        "--data=@/nowhere",
        "--path-404=up",
        "--resolve=h:80",
        "--connect-to=h:80",
        "--max-time=1s",
        "--rate=0",
        "--skip=nothing",
        "--color=sometimes",
    ])
    .await;
    assert_eq!(output.status.code(), Some(2));
    let parts = [
        "9 bad settings",
        "--user=",
        "--data=",
        "--path-404=",
        "--resolve=",
        "--connect-to=",
    ];
    assert_contains(text(&output.stderr), &parts);
    let parts = [
        "--max-time=\"1s\"; allowed: at least 2s",
        "--rate=\"0\"",
        "--skip=",
        "--color=",
    ];
    assert_contains(text(&output.stderr), &parts);
}
