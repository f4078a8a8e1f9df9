//! `rstlab check` as a program against rstlab-upstream as a program.

use std::process::Command;

use rstlab_tests::{binary, upstream};

/// What `rstlab check` prints of a server in some mode, and its exit code.
fn check(mode: &str) -> (Option<i32>, String) {
    let server = upstream(&[("UPSTREAM_MODE", mode)]);
    let output = Command::new(binary("rstlab"))
        .args(["check", &format!("http://{}/", server.address)])
        .args(["--trials=6", "--scenario", "body-after-gap", "keep-alive"])
        .env_clear()
        .output()
        .expect("it starts");
    server.stop();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code(), printed)
}

#[test]
fn a_killed_server_loses_every_response() {
    let (code, printed) = check("kill");
    assert_eq!(code, Some(1), "{printed}");
    for name in ["body-after-gap", "keep-alive"] {
        let all = format!("{name}: 12 of 12 responses are lost");
        assert!(printed.contains(&all), "{all:?} is missing in:\n{printed}");
    }
}

#[test]
fn a_server_that_reads_loses_none() {
    let (code, printed) = check("drain");
    assert_eq!(code, Some(0), "{printed}");
    assert!(
        printed.contains("reads the body before it answers"),
        "{printed}"
    );
}
