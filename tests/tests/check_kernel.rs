//! `rstlab check` with the kernel's own word on each reset.

#![cfg(feature = "kernel")]
// Helpers of tests, outside of #[test].
#![allow(clippy::unwrap_used)]

use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rstlab_tests::{LIMIT, Program, binary, trace_instances, upstream};

/// The scenario's sentence.
fn sentence(mode: &str, scenario: &str) -> String {
    let server = upstream(&[("UPSTREAM_MODE", mode)]);
    let output = Command::new(binary("rstlab"))
        .args(["check", &format!("http://{}/", server.address)])
        .args(["--trials=10", "--gaps=20ms", "--scenario", scenario])
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!printed.contains("The kernel was not asked"), "{printed}");
    let words: Vec<_> = printed.split_whitespace().collect();
    words.join(" ")
}

#[test]
fn an_interrupt_leaves_no_trace_instance() {
    let server = upstream(&[]);
    let mut command = Command::new(binary("rstlab"));
    command
        .args(["check", &format!("http://{}/", server.address)])
        .args(["--trials=10000", "--quiet"]);
    let check = Program::start(command);
    let pid = check.pid();
    let deadline = Instant::now() + LIMIT;
    while trace_instances(pid) == 0 {
        assert!(Instant::now() < deadline, "the kernel was not asked");
        sleep(Duration::from_millis(5));
    }
    let ended = check.stop();
    assert_eq!(ended.status.code(), Some(1), "{:?}", ended.log);
    assert_eq!(ended.count("interrupted: no report was made"), 1);
    assert_eq!(trace_instances(pid), 0);
}

#[test]
fn each_reset_has_its_reason() {
    for (mode, reason) in [
        ("lazy", "The kernel: TCP_ABORT_ON_DATA 20."),
        ("abort", "The kernel: TCP_STATE 20."),
    ] {
        let printed = sentence(mode, "body-after-gap");
        assert!(printed.contains(reason), "{mode}: {printed}");
    }
    let printed = sentence("drain", "body-after-gap");
    assert!(!printed.contains("The kernel: "), "{printed}");
}
