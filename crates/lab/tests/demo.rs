//! `rstlab demo` as its user runs it: the kernel behaves as the explanation says, and the program says so.

use std::process::Output;

use rstlab_tests::{InTime as _, assert_contains, check_schema, rstlab, text};
use serde_json::Value;

fn demo(args: &[&str]) -> Output {
    rstlab(&["demo"]).args(args).output_in_time()
}

/// The gap is long enough for the upstream to read the head alone, on a busy machine too.
#[test]
fn every_row_of_the_demonstration_is_as_the_explanation_says() {
    let output = demo(&["--requests", "40", "--gap", "20ms", "--json"]);
    let json: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(output.status.success(), "{json:#}");
    check_schema("demo", &json).expect("as the schema says");
    let rows = json["rows"].as_array().expect("rows");
    for row in rows {
        assert_eq!(row["requests"], 40);
        assert_eq!(row["as_expected"], true, "{row}");
    }

    let lost: Vec<String> = rows
        .iter()
        .filter(|row| row["truncated"] != 0 || row["no_response"] != 0)
        .map(|row| format!("{} {}", row["mode"], row["writes"]))
        .collect();
    assert_eq!(lost, [r#""lazy" "split""#, r#""abort" "split""#]);
    let reset: Vec<&Value> = rows
        .iter()
        .filter(|row| row["resets"] != 0)
        .map(|row| &row["mode"])
        .collect();
    assert_eq!(reset, ["lazy", "delay", "abort"]);
}

#[test]
fn the_table_of_the_demonstration_fits_a_terminal() {
    let output = demo(&["--requests", "8", "--gap", "50ms"]);
    let printed = text(&output.stdout);
    assert!(output.status.success(), "{printed}");
    assert_contains(printed, &["lazy     split "]);
    let words: Vec<_> = printed.split_whitespace().collect();
    let parts = [
        "of 8 connections were reset",
        "No cure: delay only moves the RST",
    ];
    assert_contains(&words.join(" "), &parts);
    let (mut table, mut sentences) = (printed.lines().take(10), printed.lines().skip(10));
    assert!(table.all(|line| line.len() <= 80), "{printed}");
    assert!(sentences.all(|line| line.len() <= 100), "{printed}");
    // The demonstration says so if the machine is short of memory for TCP.
    let mut said = text(&output.stderr).lines();
    let is_note = |line: &str| line.contains("short of memory for TCP");
    assert!(said.all(is_note), "no bar and no log in a pipe");
}

#[test]
fn bad_settings_are_all_named() {
    let output = demo(&["--requests", "0", "--gap", "1"]);
    assert_eq!(output.status.code(), Some(2));
    let told = text(&output.stderr);
    assert_contains(told, &["--requests=\"0\"", "--gap=\"1\""]);
}
