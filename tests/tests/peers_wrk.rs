//! wrk counts read errors behind the proxy if the upstream is `lazy`, and none if it is `drain`.

#![cfg(feature = "peers")]

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use rstlab_tests::{InTime as _, proxy, upstream};

/// POSTs for a second over four connections; returns what wrk printed.
fn wrk(proxy: SocketAddr) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/post.lua");
    let output = Command::new("wrk")
        .args(["--threads", "1", "--connections", "4", "--duration", "1s"])
        .arg("--script")
        .arg(script)
        .arg(format!("http://{proxy}/"))
        .output_in_time();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs wrk against an upstream in `mode`; returns what wrk printed and the number of truncated responses.
fn run(mode: &str) -> (String, u64) {
    let upstream = upstream(&[("UPSTREAM_MODE", mode)]);
    let proxy = proxy(upstream.address, &[("PROXY_GAP", "1ms")]);
    let printed = wrk(proxy.address);
    let ended = proxy.stop();
    assert_eq!(ended.status.code(), Some(0));
    eprintln!("{mode}: {printed}");
    assert!(ended.summary("requests") > 0, "{printed}");
    (printed, ended.summary("truncated"))
}

#[test]
fn wrk_counts_read_errors_with_lazy() {
    let (printed, truncated) = run("lazy");
    assert!(truncated > 0, "{printed}");
    let read_errors = printed
        .split_once("Socket errors: connect 0, read ")
        .and_then(|(_, rest)| rest.split(',').next()?.parse::<u64>().ok());
    assert!(read_errors > Some(0), "{printed}");
}

#[test]
fn wrk_counts_no_error_with_drain() {
    let (printed, truncated) = run("drain");
    assert_eq!(truncated, 0);
    for error in ["Socket errors", "Non-2xx"] {
        assert!(!printed.contains(error), "{printed}");
    }
}
