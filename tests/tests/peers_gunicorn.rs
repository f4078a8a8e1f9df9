//! rstlab-proxy in front of real gunicorns, and rstlab check of them.

#![cfg(feature = "peers")]
// Helpers of tests, outside of #[test].
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use rstlab_tests::{ChildProgram, InTime as _, ProgramEnd, exchange, post_head, proxy, rstlab};
use serde_json::Value;

const REQUESTS: u64 = 100;

/// This version resets connections: it closes with bytes unread, and does not drain.
const OLD: &str = "23.0.0";

/// This version half-closes and drains up to 64 KiB, as all versions since 26.0.0.
const NEW: &str = "27.0.1";

/// Starts gunicorn with one synchronous worker and `tests/peers/app.py`.
fn gunicorn(version: &str) -> (ChildProgram, SocketAddr) {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = tests
        .join("../.venv")
        .join(format!("gunicorn-{version}/bin/gunicorn"));
    assert!(
        program.exists(),
        "{} is missing: tests/run.sh installs it",
        program.display()
    );
    let mut command = Command::new(program);
    command
        .args(["--bind", "127.0.0.1:0", "--worker-class", "sync"])
        .args(["--workers", "1"])
        .arg("--chdir")
        .arg(tests.join("peers"))
        .arg("app:app")
        .env("PYTHONDONTWRITEBYTECODE", "1");
    if version == NEW {
        // The control socket would be created in the home directory of the user.
        command.arg("--no-control-socket");
    }
    let mut program = ChildProgram::start(command);
    let line = program.wait_for("Listening at: http://");
    let address = line
        .split_once("http://")
        .and_then(|(_, rest)| rest.split(' ').next()?.parse().ok())
        .unwrap_or_else(|| panic!("no address in {line:?}"));
    program.wait_for("Booting worker");
    (program, address)
}

/// Sends the requests through the proxy; returns how the proxy ended, with its summary.
fn run(version: &str, path: &str) -> ProgramEnd {
    let (gunicorn, address) = gunicorn(version);
    let proxy = proxy(address, &[("PROXY_GAP", "1ms")]);
    let mut request = post_head(path, 22).into_bytes();
    request.extend([b'b'; 22]);
    let mut whole = 0;
    for _ in 0..REQUESTS {
        let reply = exchange(proxy.address, &request).unwrap();
        assert_eq!(reply.status, Some(200), "{reply:?}");
        whole += u64::from(reply.is_whole());
    }
    let ended = proxy.stop();
    assert_eq!(ended.status.code(), Some(0));
    assert_eq!(gunicorn.stop().status.code(), Some(0));
    assert_eq!(ended.summary("requests"), REQUESTS);
    assert_eq!(ended.summary("truncated"), REQUESTS - whole);
    eprintln!(
        "gunicorn {version} {path}: {} resets, {} truncated of {REQUESTS}",
        ended.summary("resets"),
        ended.summary("truncated")
    );
    ended
}

#[test]
fn an_old_gunicorn_resets_when_the_app_ignores_the_body() {
    let ended = run(OLD, "/ignore");
    let resets = ended.summary("resets");
    assert!(resets > 0, "{:#?}", ended.log);
    let line = "(104: Connection reset by peer) while reading upstream";
    assert!(ended.count(line) > 0, "{:#?}", ended.log);
}

#[test]
fn an_old_gunicorn_does_not_reset_when_the_app_reads_the_body() {
    let ended = run(OLD, "/read");
    assert_eq!(ended.summary("resets"), 0, "{:#?}", ended.log);
}

#[test]
fn a_new_gunicorn_does_not_reset_whether_the_app_reads_the_body_or_not() {
    for path in ["/ignore", "/read"] {
        let ended = run(NEW, path);
        assert_eq!(ended.summary("resets"), 0, "{:#?}", ended.log);
    }
}

/// The exit code and the report of `rstlab check` of the app that ignores bodies, for one size.
fn check(address: SocketAddr, body_bytes: &str) -> (Option<i32>, Value) {
    let output = rstlab(&["check", &format!("http://{address}/ignore")])
        .args(["--body-sizes", body_bytes, "--trials=10"])
        .args(["--scenario=body-after-gap", "--fail-on=low"])
        .args(["--quiet", "--json=/dev/stdout"])
        .env_clear()
        .output_in_time();
    let report = serde_json::from_slice(&output.stdout).unwrap();
    (output.status.code(), report)
}

#[test]
fn check_finds_that_an_old_gunicorn_loses_at_every_size() {
    let (_gunicorn, address) = gunicorn(OLD);
    for bytes in ["22", "60000", "200000"] {
        let (code, report) = check(address, bytes);
        assert_eq!(code, Some(1), "{bytes} bytes:\n{report:#}");
        assert_eq!(report["drain"]["kind"], "resets-at-once", "{report:#}");
    }
}

#[test]
fn check_finds_the_bounds_of_a_new_gunicorn() {
    let (_gunicorn, address) = gunicorn(NEW);
    for (bytes, expected) in [("22", 0), ("60000", 0), ("200000", 1)] {
        let (code, report) = check(address, bytes);
        assert_eq!(code, Some(expected), "{bytes} bytes:\n{report:#}");
        let drain = &report["drain"];
        assert_eq!(drain["kind"], "reads-on", "{report:#}");
        assert_eq!(drain["bytes"]["at_least"], 65_536, "{report:#}");
        assert_eq!(drain["bytes"]["less_than"], 65_537, "{report:#}");
        // gunicorn drains for 2 s. On a busy machine it may notice the deadline later.
        let time = |end: &str| drain["milliseconds"][end].as_u64().unwrap();
        assert!((1_800..2_200).contains(&time("at_least")), "{report:#}");
        assert!((1_900..2_300).contains(&time("less_than")), "{report:#}");
    }
}
