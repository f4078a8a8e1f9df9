//! `rstlab check` as a program: its output, its files and its exit codes.

#![allow(clippy::unwrap_used)]

use std::ffi::OsStr;
use std::fs;
use std::process::{Output, Stdio};

use rstlab_tests::{
    Peer, assert_contains, check_schema, cut, read_request, rstlab_output, soon, text,
    try_read_head, words,
};
use rstlab_upstream::{Mode, UpstreamConfig as Config};
use rstlab_witness::{Takers, Witness};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

async fn check(args: &[&str]) -> Output {
    rstlab_output(&[&["check"], args].concat()).await
}

/// An upstream on a free port; stopped when the token is dropped.
async fn upstream(mode: Mode) -> (String, tokio_util::sync::DropGuard) {
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

/// The numbers in a file of JUnit XML.
fn tests_and_failures(file: &str) -> (usize, usize) {
    let text = fs::read_to_string(file).unwrap();
    let junit = quick_junit::Report::deserialize_from_str(&text).unwrap();
    let suite = &junit.test_suites[0];
    (suite.tests, suite.failures)
}

/// What `rstlab` prints if it may have only so many files open.
async fn limited(files: u32, args: &str) -> Output {
    let script = format!("ulimit -n {files} && exec \"$0\" {args}");
    let run = Command::new("sh")
        .args(["-c", &script, env!("CARGO_BIN_EXE_rstlab")])
        .env_remove("LOG")
        .kill_on_drop(true)
        .output();
    soon(run).await.unwrap()
}

#[tokio::test]
async fn check_prints_a_table_of_100_columns_and_writes_three_files() {
    let (url, _stop) = upstream(Mode::Lazy).await;
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (json, junit, markdown) = (path("a.json"), path("b.xml"), path("c.md"));
    let files = ["--json", &json, "--junit", &junit, "--markdown", &markdown];
    let output = check(&[&[&url, "--trials=4", "--fail-on=low"], &files[..]].concat()).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stderr.is_empty(), "{}", text(&output.stderr));

    let stdout = text(&output.stdout);
    assert_contains(
        &words(stdout),
        &[
            "is answered with 200 and 614,400 bytes. Responses were lost: ",
            "; cut responses are missing ",
            " body-after-gap kept loses ",
            " close loses ",
            " expect-continue kept pass 0/4 0/4 0/4 - - - close pass 0/4 0/4 0/4 - - - ",
            "cut by a reset",
            "does not read on: the first byte that comes later is",
            "a receive buffer of 4,096 bytes",
        ],
    );
    for line in stdout.lines() {
        assert!(line.chars().count() <= 100, "too wide:\n{line}");
    }

    let report: Value = serde_json::from_slice(&fs::read(json).unwrap()).unwrap();
    check_schema("check", &report).unwrap();
    assert_eq!(report["verdict"], "loses");
    let scenarios = report["scenarios"].as_array().unwrap();
    assert_eq!(scenarios.len(), 12);
    for client in scenarios
        .iter()
        .flat_map(|one| one["clients"].as_array().unwrap())
    {
        let counts = &client["counts"];
        let outcomes = counts["outcomes"].as_object().unwrap().values();
        let sum: u64 = outcomes.map(|count| count.as_u64().unwrap()).sum();
        assert_eq!(counts["trials"], sum);
    }

    assert_eq!(tests_and_failures(&junit), (12, 11));
    let markdown = fs::read_to_string(markdown).unwrap();
    assert!(
        markdown.starts_with("### rstlab check: loses\n"),
        "{markdown}"
    );
    assert_eq!(
        markdown
            .lines()
            .filter(|line| line.starts_with("| "))
            .count(),
        2 + 9 * 2 + 3
    );
    assert!(
        markdown.contains(
            "- **keep-alive** (the next request on the kept connection; RFC 9112 §9.3): "
        )
    );
}

#[tokio::test]
async fn the_exit_code_says_whether_the_check_failed() {
    let (drain, _stop_drain) = upstream(Mode::Drain).await;
    let (delay, _stop_delay) = upstream(Mode::Delay).await;
    let directory = tempfile::tempdir().unwrap();
    let scenario = ["--trials=2", "--gaps=20ms", "--scenario=body-after-gap"];
    for (url, more, code) in [
        (&drain, "--fail-on=low", 0),
        (&drain, "--fail-on=reset", 0),
        (&delay, "--fail-on=low", 0),
        (&delay, "--fail-on=reset", 1),
    ] {
        let junit = directory.path().join("junit.xml");
        let junit = junit.to_str().unwrap();
        let file = ["--quiet", "--junit", junit];
        let output = check(&[&[url.as_str(), more], &file[..], &scenario].concat()).await;
        assert_eq!(output.status.code(), Some(code), "{url} {more}");
        assert_eq!(tests_and_failures(junit), (1, code as usize));
        assert!(output.stdout.is_empty(), "{}", text(&output.stdout));
        assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
    }
}

#[tokio::test]
async fn a_server_that_cannot_be_checked_is_exit_code_2() {
    let silent = Peer::silent().await;
    let url = format!("http://{}/", silent.address);
    let output = check(&[&url, "--timeout=200ms"]).await;
    assert_eq!(output.status.code(), Some(2));
    assert_contains(text(&output.stderr), &["does not answer within 200ms"]);
    silent.finish().await;

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let output = check(&[&url]).await;
    assert_eq!(output.status.code(), Some(2));
    let parts = ["cannot connect to 127.0.0.1:", "Connection refused"];
    assert_contains(text(&output.stderr), &parts);

    let output = check(&["http://localhost/", "--unix", "/nowhere/at/all"]).await;
    assert_eq!(output.status.code(), Some(2));
    assert_contains(text(&output.stderr), &["cannot connect to /nowhere/at/all"]);

    let output = check(&["http://localhost/", "--json", "/nowhere/at/all"]).await;
    assert_eq!(output.status.code(), Some(2));
    assert_contains(text(&output.stderr), &["cannot write /nowhere/at/all"]);
}

#[tokio::test]
async fn an_interrupt_makes_no_report() {
    for (what, signal) in [("URL", Signal::INT), ("--through", Signal::TERM)] {
        let (asked, mut requests) = mpsc::channel(1);
        let server = Peer::start(move |mut stream, _| {
            let asked = asked.clone();
            async move {
                try_read_head(&mut stream).await;
                asked.send(()).await.unwrap();
                // The read ends when the client leaves.
                let _ = stream.read(&mut [0]).await;
            }
        })
        .await;
        let url = format!("http://{}/", server.address);
        let directory = tempfile::tempdir().unwrap();
        let (old, new) = (directory.path().join("old"), directory.path().join("new"));
        fs::write(&old, "an old report").unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_rstlab"));
        command.args(["check", "--timeout=5min"]);
        if what == "--through" {
            command.args(["--upstream-listen=127.0.0.1:0", "--through"]);
        }
        let child = command
            .arg(url)
            .args([OsStr::new("--json"), old.as_os_str()])
            .args([OsStr::new("--markdown"), new.as_os_str()])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        soon(requests.recv()).await.unwrap();
        let id = Pid::from_raw(child.id().unwrap().try_into().unwrap()).unwrap();
        kill_process(id, signal).unwrap();
        let output = soon(child.wait_with_output()).await.unwrap();
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{what}: {stderr}");
        assert_eq!(stderr, "rstlab: interrupted: no report was made\n");
        assert!(output.stdout.is_empty(), "{}", text(&output.stdout));
        assert_eq!(fs::read_to_string(&old).unwrap(), "an old report");
        assert!(!new.exists(), "{what}");
        server.finish().await;
    }
}

#[tokio::test]
async fn an_interrupt_ends_the_trials_and_the_report_is_of_those_that_had_ended() {
    let (answered, mut answers) = mpsc::unbounded_channel();
    let server = Peer::start(move |mut stream, _| {
        let answered = answered.clone();
        async move {
            if let Some((_, length)) = read_request(&mut stream).await {
                let _ = stream.write_all(&cut(9, 9)).await;
                if length == 7 {
                    answered.send(()).unwrap();
                }
            }
        }
    })
    .await;
    let child = Command::new(env!("CARGO_BIN_EXE_rstlab"))
        .arg("check")
        .arg(format!("http://{}/", server.address))
        .args([
            "--scenario=body-with-head",
            "--body-sizes=7",
            "--trials=10000",
        ])
        .args(["--timeout=5min", "--junit=-"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    for _ in 0..50 {
        soon(answers.recv()).await.unwrap();
    }
    let id = Pid::from_raw(child.id().unwrap().try_into().unwrap()).unwrap();
    kill_process(id, Signal::INT).unwrap();
    let output = soon(child.wait_with_output()).await.unwrap();
    // Nothing was lost, but not everything was tried.
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let printed = words(text(&output.stdout));
    let parts = [
        "The check was interrupted",
        "body-with-head kept pass 0/",
        "<testsuites ",
    ];
    assert_contains(&printed, &parts);
    server.finish().await;
}

#[tokio::test]
async fn a_check_that_cannot_tell_is_exit_code_3_and_says_once_what_to_ask_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/path", listener.local_addr().unwrap());
    let config = Config {
        mode: Mode::Delay,
        response_bytes: 2,
        ..Config::default()
    };
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    tokio::spawn(rstlab_upstream::run(
        listener,
        config.into(),
        Takers::default(),
        Witness::default(),
        stop,
    ));
    let args = ["--trials=2", "--scenario", "body-after-gap", "half-close"];
    for (fail_on, code) in [("low", 3), ("reset", 1)] {
        let fail_on = format!("--fail-on={fail_on}");
        let output = check(&[&[url.as_str(), &fail_on], &args[..]].concat()).await;
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        let printed = words(text(&output.stdout));
        let part = "A response of 2 bytes fits into the client's socket, where no reset can take it: ask for a path";
        assert_contains(&printed, &[part, "not every scenario can tell"]);
        assert!(!printed.contains("half-close: "), "{printed}");
    }
}

#[tokio::test]
async fn requests_that_a_server_which_ended_never_got_are_not_lost_responses() {
    // This server answers well, and ends after 20 connections.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        for _ in 0..20 {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                if read_request(&mut stream).await.is_some() {
                    let _ = stream.write_all(&cut(9, 9)).await;
                }
            });
        }
    });
    let output = check(&[&url, "--scenario=body-with-head"]).await;
    let parts = ["stopped taking connections after ", "Connection refused"];
    assert_contains(text(&output.stderr), &parts);
    assert_eq!(output.status.code(), Some(2));
    soon(server).await.unwrap();
}

#[tokio::test]
async fn reaching_the_limit_of_open_files_is_an_error_and_not_a_loss() {
    let (url, _stop) = upstream(Mode::Drain).await;
    // So many files are enough for the check to begin, and too few for four connections.
    let args = format!("check {url} --scenario=body-after-gap --gaps=500ms");
    let output = limited(14, &args).await;
    assert_contains(text(&output.stderr), &["raise the limit with ulimit -n"]);
    assert_eq!(output.status.code(), Some(2));
}

#[tokio::test]
async fn slow_trials_do_not_delay_the_other_trials() {
    let (url, _stop) = upstream(Mode::Drain).await;
    // So many files leave room for one slow connection at a time.
    let args = format!("check {url} --scenario body-trickles body-with-head --quiet --json -");
    let output = limited(64, &args).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    for client in report["scenarios"][0]["clients"].as_array().unwrap() {
        assert_eq!(client["counts"]["trials"], 50, "{report:#}");
    }
}

#[tokio::test]
async fn bad_settings_of_check_are_all_named() {
    let output = check(&[
        "https://localhost/",
        "--method=A B",
        "--header=no colon",
        "--header=Content-Length: 5",
        "--body-sizes=1,x",
        "--gaps=1",
        "--trials=0",
        "--scenario=nothing",
        "--fail-on=never",
        "--timeout=0s",
        "--expect-status=200,99",
        "--retry=soon",
    ])
    .await;
    assert_eq!(output.status.code(), Some(2));
    assert_contains(
        text(&output.stderr),
        &[
            "12 bad settings",
            "URL=\"https://localhost/\"; allowed: an http:// URL",
            "--method=\"A B\"",
            "--header=\"no colon\"",
            "--header=\"Content-Length: 5\"",
            "--body-sizes=\"x\"",
            "--gaps=\"1\"",
            "--trials=\"0\"; allowed: 1 to 10000",
            "--scenario=\"nothing\"; allowed: body-with-head, ",
            "--fail-on=\"never\"; allowed: critical, high, medium, low, reset",
            "--timeout=\"0s\"",
            "--expect-status=\"99\"; allowed: 200 to 599",
            "--retry=\"soon\"",
        ],
    );
}
