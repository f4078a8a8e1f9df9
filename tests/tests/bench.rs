//! `rstlab bench` of rstlab-proxy alone, with peers that are missing or broken, and interrupted.

// Helpers of tests, outside of #[test].
#![allow(clippy::unwrap_used)]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rstlab_tests::{
    InTime as _, LIMIT, assert_contains, binary, check_schema, processes_of, rstlab, text, words,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A bench of one small case, in a directory of its own.
fn bench(directory: &Path, flags: &str) -> Command {
    let mut command = rstlab(&["bench", "--cases=post-1k", "--workers=1", "--json=a.json"]);
    command.args(flags.split(' ')).current_dir(directory);
    // The programs that it starts inherit this variable, by which the test finds them.
    command.env("BENCH_OF_TEST", directory);
    command
}

fn json(directory: &Path) -> Value {
    let report = fs::read(directory.join("a.json")).unwrap();
    let report = serde_json::from_slice(&report).unwrap();
    check_schema("bench", &report).unwrap();
    report
}

#[test]
fn bench_of_rstlab_proxy_alone_has_figures_and_no_ratio() {
    let directory = tempfile::tempdir().unwrap();
    let output = bench(
        directory.path(),
        "--peers=none --rounds=2 --requests=20 --markdown=b.md",
    )
    .output_in_time();
    let printed = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{printed}");
    let announced = text(&output.stderr);
    assert!(
        announced.starts_with("rstlab: 6 turns, about "),
        "{announced}"
    );
    assert_contains(
        &words(printed),
        &[
            "post-1k, 1 worker: POST of 22 B, response of 1,024 B, the upstream closes its connections, 16 clients",
            "rstlab-proxy, sockets: 0.1.0, PROXY_WITNESS=sockets",
            "medians of 2 rounds",
        ],
    );
    for line in printed.lines() {
        assert!(line.chars().count() <= 100, "too wide:\n{line}");
    }

    let report = json(directory.path());
    let case = &report["cases"][0];
    assert_eq!(
        (&case["requests"], &case["best_peer"]),
        (&32.into(), &Value::Null)
    );
    for row in [0, 1, 2] {
        let figures = &case["rows"][row]["figures"];
        assert_eq!(figures["cpu_to_best_peer"], Value::Null);
        for figure in [
            "cpu_us_per_request",
            "requests_per_second",
            "p50_us",
            "p99_us",
            "peak_memory_bytes",
        ] {
            let [min, median, max] =
                ["min", "median", "max"].map(|name| figures[figure][name].as_f64().unwrap());
            assert!(0.0 < min && min <= median && median <= max, "{figures}");
        }
    }
    let markdown = fs::read_to_string(directory.path().join("b.md")).unwrap();
    assert_contains(
        &markdown,
        &["| post-1k, 1 worker | rstlab-proxy, sockets | "],
    );
    let mark = directory.path().to_str().unwrap();
    assert_eq!(processes_of(mark), <[PathBuf; 0]>::default());
}

#[test]
fn a_missing_peer_is_named_and_is_no_failure() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = bench(directory.path(), "--rounds=1 --requests=20");
    let output = command.env("PATH", directory.path()).output_in_time();
    let printed = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{printed}");
    assert_contains(printed, &["nginx is missing: ", "haproxy is missing: "]);
    let report = json(directory.path());
    assert_eq!(report["missing"], serde_json::json!(["nginx", "haproxy"]));
    assert_eq!(report["proxies"].as_array().unwrap().len(), 3);
}

#[test]
fn a_proxy_that_does_not_run_says_why_and_the_others_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let nginx = directory.path().join("nginx");
    fs::write(
        &nginx,
        "#!/bin/sh\n[ \"$1\" = -v ] && echo nginx version: nginx/9.9.9 && exit\necho no licence >&2\nexit 3\n",
    )
    .unwrap();
    fs::set_permissions(&nginx, Permissions::from_mode(0o755)).unwrap();
    let mut command = bench(directory.path(), "--rounds=1 --requests=20 --peers=nginx");
    let output = command.env("PATH", directory.path()).output_in_time();
    let printed = words(text(&output.stdout));
    assert_eq!(output.status.code(), Some(1), "{printed}");
    assert_contains(
        &printed,
        &[
            "nginx: 9.9.9, default buffers",
            "post-1k, 1 worker: nginx: it ended (exit status: 3) before it was ready; it wrote: no licence",
        ],
    );
    let rows = &json(directory.path())["cases"][0]["rows"];
    assert!(
        rows[0]["figures"].is_object() && rows[3]["figures"].is_null(),
        "{rows}"
    );
}

#[test]
fn a_case_with_more_connections_than_open_files_is_left_out_with_the_number_it_needs() {
    let directory = tempfile::tempdir().unwrap();
    let script = "ulimit -n 1000 && exec \"$0\" bench --peers none --quick --cases post-1k-4096";
    let mut command = Command::new("sh");
    command.args(["-c", script]).arg(binary("rstlab"));
    let output = command.current_dir(directory.path()).output_in_time();
    let printed = words(text(&output.stdout));
    assert_eq!(output.status.code(), Some(1), "{printed}");
    assert_contains(
        &printed,
        &["rstlab-proxy: 4,096 connections need 12,288 open files (ulimit -n)"],
    );
}

#[test]
fn an_interrupted_bench_leaves_neither_a_process_nor_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let mark = directory.path().to_str().unwrap();
    let mut command = bench(
        directory.path(),
        "--peers=none --rounds=100 --requests=1000000",
    );
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let deadline = Instant::now() + LIMIT;
    let is_loaded = |process: &PathBuf| {
        let line = fs::read(process.join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains("--upstream-keepalive")
    };
    while !processes_of(mark).iter().any(is_loaded) {
        assert!(Instant::now() < deadline, "no proxy was started");
        sleep(Duration::from_millis(5));
    }
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let output = child.output_in_time();
    assert_eq!(output.status.code(), Some(1));
    let said = "interrupted: there are no figures, and nothing is left running";
    assert_contains(text(&output.stderr), &[said]);
    assert_eq!(processes_of(mark), <[PathBuf; 0]>::default());
    assert!(!directory.path().join("a.json").exists());
}
