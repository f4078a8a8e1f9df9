//! What tests look for in the output of our programs: parts of a text, and JSON that its schema allows.

use std::fs;

use serde_json::Value;

/// Bytes as text.
///
/// # Panics
/// They are not UTF-8.
pub fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

/// The words of a text, one blank apart: without line breaks and padding.
pub fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Checks that each part stands in the text.
///
/// # Panics
/// A part does not.
#[track_caller]
pub fn assert_contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in:\n{text}");
    }
}

/// The values of a text that has one of them on each line.
///
/// # Panics
/// A line is not JSON.
pub fn json_lines(text: &str) -> Vec<Value> {
    let value = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    text.lines().map(value).collect()
}

/// The schema in `crates/lab/schema/NAME.json`.
///
/// # Panics
/// There is none of this name.
pub fn schema(name: &str) -> Value {
    let path = format!(
        "{}/../crates/lab/schema/{name}.json",
        env!("CARGO_MANIFEST_DIR")
    );
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    serde_json::from_str(&text).expect("a schema is JSON")
}

/// Checks a value against `crates/lab/schema/NAME.json`.
///
/// # Errors
/// The value breaks the schema; the text says where and how.
pub fn check_schema(name: &str, value: &Value) -> Result<(), String> {
    jsonschema::validate(&schema(name), value)
        .map_err(|error| format!("{} is wrong: {error}", error.instance_path()))
}
