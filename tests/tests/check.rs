//! `rstlab check` as a program against rstlab-upstream as a program.

use rstlab_tests::{InTime as _, assert_contains, rstlab, text, upstream};

/// What `rstlab check` prints of a server in some mode, and its exit code.
fn check(mode: &str) -> (Option<i32>, String) {
    let server = upstream(&[("UPSTREAM_MODE", mode)]);
    let output = rstlab(&["check", &format!("http://{}/", server.address)])
        .args(["--trials=6", "--scenario", "body-after-gap", "keep-alive"])
        .env_clear()
        .output_in_time();
    server.stop();
    (output.status.code(), text(&output.stdout).to_owned())
}

#[test]
fn a_killed_server_loses_every_response() {
    let (code, printed) = check("kill");
    assert_eq!(code, Some(1), "{printed}");
    for (name, trials) in [("body-after-gap", 36), ("keep-alive", 18)] {
        let all = format!("{name}: {trials} of {trials} responses are lost");
        assert_contains(&printed, &[&all]);
    }
}

#[test]
fn a_server_that_reads_loses_none() {
    let (code, printed) = check("drain");
    assert_eq!(code, Some(0), "{printed}");
    assert_contains(&printed, &["reads the body before it answers"]);
}
