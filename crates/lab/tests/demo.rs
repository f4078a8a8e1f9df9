//! `rstlab demo` as its user runs it: the kernel behaves as the explanation says, and the program says so.

use std::process::{Command, Output};

use serde_json::Value;

fn demo(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rstlab"))
        .arg("demo")
        .args(args)
        .env_remove("LOG")
        .output()
        .expect("the program runs")
}

/// The gap is long enough for the upstream to read the head alone, on a busy machine too.
#[test]
fn every_row_is_as_the_explanation_says() {
    let output = demo(&["--requests", "40", "--gap", "20ms", "--json"]);
    let text = String::from_utf8(output.stdout).expect("text");
    let json: Value = serde_json::from_str(&text).expect("JSON");
    assert!(output.status.success(), "{text}");

    let schema: Value = serde_json::from_str(include_str!("../schema/demo.json")).expect("JSON");
    let required = &schema["properties"]["rows"]["items"]["required"];
    let required: Vec<&str> = required
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let rows = json["rows"].as_array().expect("rows");
    for row in rows {
        let keys: Vec<&str> = row
            .as_object()
            .expect("a row")
            .keys()
            .map(String::as_str)
            .collect();
        let mut sorted = required.clone();
        sorted.sort_unstable();
        assert_eq!(keys, sorted, "as the schema says");
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
fn the_table_and_the_sentences_fit_a_terminal() {
    let output = demo(&["--requests", "8", "--gap", "50ms"]);
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success(), "{text}");
    assert!(text.contains("lazy     split "), "{text}");
    assert!(text.contains("of 8 connections were reset"), "{text}");
    assert!(text.contains("No cure: delay only moves the RST"), "{text}");
    let table = text.lines().take(10);
    assert!(table.clone().all(|line| line.len() <= 80), "{text}");
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "",
        "no bar and no log in a pipe"
    );
}

#[test]
fn bad_settings_are_named_at_once() {
    let output = demo(&["--requests", "0", "--gap", "1"]);
    let text = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(
        text.contains("--requests=\"0\"") && text.contains("--gap=\"1\""),
        "{text}"
    );
}
