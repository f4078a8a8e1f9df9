//! `rstlab check` with the kernel's reason for each reset.

#![cfg(feature = "kernel")]
// Helpers of tests, outside of #[test].
#![allow(clippy::unwrap_used)]

use std::thread::sleep;
use std::time::{Duration, Instant};

use rstlab_tests::{
    ChildProgram, InTime as _, LIMIT, assert_contains, rstlab, text, trace_instances, upstream,
    words,
};

/// The report of a check with one scenario, as words.
fn report(mode: &str, scenario: &str) -> String {
    let server = upstream(&[("UPSTREAM_MODE", mode)]);
    let output = rstlab(&["check", &format!("http://{}/", server.address)])
        .args(["--trials=10", "--gaps=20ms", "--scenario", scenario])
        .output_in_time();
    let printed = text(&output.stdout);
    assert!(!printed.contains("The kernel was not asked"), "{printed}");
    words(printed)
}

#[test]
fn an_interrupted_check_leaves_no_trace_instance() {
    let server = upstream(&[]);
    let mut command = rstlab(&["check", &format!("http://{}/", server.address)]);
    command.args(["--trials=10000", "--quiet"]);
    let check = ChildProgram::start(command);
    let pid = check.pid();
    let deadline = Instant::now() + LIMIT;
    while trace_instances(pid) == 0 {
        assert!(Instant::now() < deadline, "the kernel was not asked");
        sleep(Duration::from_millis(5));
    }
    check.stop();
    assert_eq!(trace_instances(pid), 0);
}

#[test]
fn check_names_the_kernel_s_reason_for_the_resets() {
    for (mode, reason) in [
        ("lazy", "The kernel: TCP_ABORT_ON_DATA "),
        ("abort", "The kernel: TCP_STATE 60."),
    ] {
        let printed = report(mode, "body-after-gap");
        assert_contains(&printed, &[reason]);
    }
    let printed = report("drain", "body-after-gap");
    assert!(!printed.contains("The kernel: "), "{printed}");
}
