//! `rstlab bench` with nginx and HAProxy.

#![cfg(feature = "peers")]

use std::path::PathBuf;

use rstlab_tests::{InTime as _, check_schema, processes_of, rstlab, text};
use serde_json::Value;

#[test]
fn every_proxy_has_figures_with_one_worker_and_with_two() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let output = rstlab(&["bench", "--cases=post-1k-kept,upload-64m"])
        .args(["--rounds=1", "--requests=20", "--quiet", "--json=-"])
        .env("BENCH_OF_TEST", directory.path())
        .output_in_time();
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(output.status.code(), Some(0), "{report:#}");
    check_schema("bench", &report).expect("the report is as its schema says");
    assert!(output.stderr.is_empty(), "{}", text(&output.stderr));

    assert_eq!(report["missing"], serde_json::json!([]));
    for proxy in report["proxies"].as_array().expect("proxies") {
        let version = proxy["version"].as_str().expect("a version");
        assert!(version.contains('.'), "{proxy}");
    }
    let cases = report["cases"].as_array().expect("cases");
    assert_eq!(cases.len(), 4);
    for case in cases {
        let rows = case["rows"].as_array().expect("rows");
        assert_eq!(rows.len(), 7);
        let ratio = |row: &Value| row["figures"]["cpu_to_best_peer"]["median"].as_f64();
        for row in rows {
            assert!(ratio(row) > Some(0.0), "{row}");
        }
        let best = rows.iter().find(|row| row["proxy"] == case["best_peer"]);
        assert_eq!(best.and_then(ratio), Some(1.0), "{case}");
        let of_peers = rows[3..].iter().filter_map(ratio);
        assert!(of_peers.fold(f64::MAX, f64::min) >= 1.0, "{case}");
    }
    let mark = directory.path().to_str().expect("text");
    assert_eq!(processes_of(mark), <[PathBuf; 0]>::default());
}
