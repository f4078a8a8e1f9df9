//! `rstlab check` as a program: what it prints and writes, and how it exits.

#![allow(clippy::unwrap_used)]

mod support;

use std::ffi::OsStr;
use std::fs;
use std::process::{Output, Stdio};

use rstlab_upstream::{Config, Mode};
use rstlab_witness::Witness;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use support::{Peer, read_head, schema, soon};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

async fn check(args: &[&str]) -> Output {
    let run = Command::new(env!("CARGO_BIN_EXE_rstlab"))
        .arg("check")
        .args(args)
        .env_remove("LOG")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    soon(run).await.unwrap()
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
        config,
        Witness::default(),
        stop.clone(),
    ));
    (url, stop.drop_guard())
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn a_table_of_100_columns_and_three_files() {
    let (url, _stop) = upstream(Mode::Lazy).await;
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (json, junit, markdown) = (path("a.json"), path("b.xml"), path("c.md"));
    let files = ["--json", &json, "--junit", &junit, "--markdown", &markdown];
    let output = check(&[&[&url, "--trials=4"], &files[..]].concat()).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stderr.is_empty(), "{}", text(&output.stderr));

    let stdout = text(&output.stdout);
    for part in [
        "is answered with 200 and 614,400 bytes. Responses were lost; those that had begun lack ",
        "body-after-gap reads on loses 6 ",
        "expect-continue reads on pass 4 4 - ",
        "cut by a reset",
        "does not read on: the first byte that comes later is",
        "a receive buffer of 4,096 bytes",
    ] {
        let words: Vec<_> = stdout.split_whitespace().collect();
        assert!(
            words.join(" ").contains(part),
            "{part:?} is missing in:\n{stdout}"
        );
    }
    for line in stdout.lines() {
        assert!(line.chars().count() <= 100, "too wide:\n{line}");
    }

    let schema: Value = serde_json::from_str(include_str!("../schema/check.json")).unwrap();
    let report: Value = serde_json::from_slice(&fs::read(json).unwrap()).unwrap();
    schema::check(&report, &schema).unwrap();
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

    let junit =
        quick_junit::Report::deserialize_from_str(&fs::read_to_string(junit).unwrap()).unwrap();
    let suite = &junit.test_suites[0];
    assert_eq!((suite.tests, suite.failures), (12, 11));
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
        2 + 24
    );
    assert!(
        markdown.contains(
            "- **keep-alive** (the next request on the kept connection; RFC 9112 §9.3): "
        )
    );
}

#[tokio::test]
async fn exit_codes() {
    let (drain, _stop_drain) = upstream(Mode::Drain).await;
    let (delay, _stop_delay) = upstream(Mode::Delay).await;
    let directory = tempfile::tempdir().unwrap();
    let scenario = ["--trials=2", "--gaps=20ms", "--scenario=body-after-gap"];
    for (url, more, code) in [
        (&drain, "--fail-on=truncated", 0),
        (&drain, "--fail-on=reset", 0),
        (&delay, "--fail-on=truncated", 0),
        (&delay, "--fail-on=reset", 1),
    ] {
        let junit = directory.path().join("junit.xml");
        let file = ["--quiet", "--junit", junit.to_str().unwrap()];
        let output = check(&[&[url.as_str(), more], &file[..], &scenario].concat()).await;
        assert_eq!(output.status.code(), Some(code), "{url} {more}");
        let junit = fs::read_to_string(junit).unwrap();
        let junit = quick_junit::Report::deserialize_from_str(&junit).unwrap();
        assert_eq!(junit.test_suites[0].failures, code as usize);
        assert!(output.stdout.is_empty(), "{}", text(&output.stdout));
        assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
    }
}

#[tokio::test]
async fn what_can_t_be_checked_is_2() {
    let silent = Peer::start(|stream, _| async move {
        let _ = stream.readable().await;
        let mut buf = [0; 1024];
        while !matches!(stream.try_read(&mut buf), Ok(0)) {
            if stream.readable().await.is_err() {
                break;
            }
        }
    })
    .await;
    let url = format!("http://{}/", silent.address);
    let output = check(&[&url, "--timeout=200ms"]).await;
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("does not answer within 200ms"));
    silent.finish().await;

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let output = check(&[&url]).await;
    assert_eq!(output.status.code(), Some(2));
    let stderr = text(&output.stderr);
    assert!(stderr.contains("cannot connect to 127.0.0.1:"), "{stderr}");
    assert!(stderr.contains("Connection refused"), "{stderr}");

    let output = check(&["http://localhost/", "--unix", "/nowhere/at/all"]).await;
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("cannot connect to /nowhere/at/all"));

    let output = check(&["http://localhost/", "--json", "/nowhere/at/all"]).await;
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("cannot write /nowhere/at/all"));
}

#[tokio::test]
async fn an_interrupt_makes_no_report() {
    for (what, signal) in [("URL", Signal::INT), ("--through", Signal::TERM)] {
        let (asked, mut requests) = mpsc::channel(1);
        let server = Peer::start(move |mut stream, _| {
            let asked = asked.clone();
            async move {
                read_head(&mut stream).await;
                asked.send(()).await.unwrap();
                // Until the client leaves.
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
async fn a_server_that_ends_has_not_lost_what_was_never_asked() {
    // Sound, for 20 connections.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        for _ in 0..20 {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                if support::read_request(&mut stream).await.is_some() {
                    let _ = stream.write_all(&support::cut(9, 9)).await;
                }
            });
        }
    });
    let output = check(&[&url, "--scenario=body-with-head"]).await;
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(
        stderr.contains("stopped taking connections after "),
        "{stderr}"
    );
    assert!(stderr.contains("Connection refused"), "{stderr}");
    soon(server).await.unwrap();
}

#[tokio::test]
async fn our_own_limit_of_open_files_is_not_a_loss() {
    let (url, _stop) = upstream(Mode::Drain).await;
    // Enough for the check to begin, and too few for four connections.
    let args = format!("check {url} --scenario=body-after-gap --gaps=500ms");
    let limited = format!("ulimit -n 14 && exec \"$0\" {args}");
    let run = Command::new("sh")
        .args(["-c", &limited, env!("CARGO_BIN_EXE_rstlab")])
        .env_remove("LOG")
        .kill_on_drop(true)
        .output();
    let output = soon(run).await.unwrap();
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(
        stderr.contains("raise the limit with ulimit -n"),
        "{stderr}"
    );
}

#[tokio::test]
async fn slow_trials_keep_no_others_waiting() {
    let (url, _stop) = upstream(Mode::Drain).await;
    let directory = tempfile::tempdir().unwrap();
    let json = directory.path().join("report.json");
    // Room for one slow connection at a time.
    let args = format!("check {url} --scenario body-trickles body-with-head --quiet --json");
    let limited = format!("ulimit -n 64 && exec \"$0\" {args} \"$1\"");
    let run = Command::new("sh")
        .args(["-c", &limited, env!("CARGO_BIN_EXE_rstlab")])
        .arg(&json)
        .env_remove("LOG")
        .kill_on_drop(true)
        .output();
    let output = soon(run).await.unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report: Value = serde_json::from_slice(&fs::read(json).unwrap()).unwrap();
    for client in report["scenarios"][0]["clients"].as_array().unwrap() {
        assert_eq!(client["counts"]["trials"], 50, "{report:#}");
    }
}

#[tokio::test]
async fn bad_settings_are_all_named() {
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
    ])
    .await;
    assert_eq!(output.status.code(), Some(2));
    let stderr = text(&output.stderr);
    for part in [
        "10 bad settings",
        "URL=\"https://localhost/\"; allowed: an http:// URL",
        "--method=\"A B\"",
        "--header=\"no colon\"",
        "--header=\"Content-Length: 5\"",
        "--body-sizes=\"x\"",
        "--gaps=\"1\"",
        "--trials=\"0\"; allowed: 1 to 10000",
        "--scenario=\"nothing\"; allowed: body-with-head, ",
        "--fail-on=\"never\"; allowed: truncated, reset",
        "--timeout=\"0s\"",
    ] {
        assert!(stderr.contains(part), "{part:?} is missing in:\n{stderr}");
    }
}
