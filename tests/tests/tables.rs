//! The tables in docs/ of settings, modes and causes are those of the programs.
//!
//! `WRITE_TABLES=1 cargo test -p rstlab-tests --test tables` writes them.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use rstlab_cli::markdown;
use rstlab_proxy::ProxyConfig;
use rstlab_upstream::{Mode, UpstreamConfig};
use rstlab_witness::{Cause, Reason};

/// The page with `table` between the marker and the end.
fn with_table(page: &str, marker: &str, table: &str) -> String {
    let marker = format!("<!-- {marker} -->\n");
    let (before, rest) = page
        .split_once(&marker)
        .unwrap_or_else(|| panic!("no {marker}"));
    let (_, after) = rest
        .split_once("<!-- end -->\n")
        .unwrap_or_else(|| panic!("no end of {marker}"));
    format!("{before}{marker}{table}<!-- end -->\n{after}")
}

fn assert_current(page: &str, tables: &[(&str, String)]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../docs")
        .join(page);
    let text = fs::read_to_string(&path).expect("the page");
    let current = tables.iter().fold(text.clone(), |text, (marker, table)| {
        with_table(&text, marker, table)
    });
    if std::env::var_os("WRITE_TABLES").is_some() {
        fs::write(&path, current).expect("the page can be written");
        return;
    }
    assert!(
        text == current,
        "docs/{page} is not what the programs say: WRITE_TABLES=1 cargo test -p rstlab-tests --test tables"
    );
}

/// Rows of a table of Markdown, below its head.
fn table(head: &str, rows: impl Iterator<Item = Vec<String>>) -> String {
    let columns = head.matches('|').count() - 1;
    let mut text = format!("{head}\n|{}\n", "---|".repeat(columns));
    for row in rows {
        // Writing to a String does not fail.
        let _ = writeln!(text, "| {} |", row.join(" | "));
    }
    text
}

fn modes() -> String {
    let rows = Mode::ALL.iter().map(|mode| {
        let row = mode.row();
        let help: Vec<&str> = row.help.lines().map(str::trim).collect();
        vec![
            format!("`{}`", row.name),
            format!("{:?}", row.body).to_lowercase(),
            format!("{:?}", row.response).to_lowercase(),
            match format!("{:?}", row.close).as_str() {
                "OnArrival" => "on arrival".to_owned(),
                close => close.to_lowercase(),
            },
            format!("{:?}", row.process).to_lowercase(),
            help.join(" "),
        ]
    });
    table(
        "| mode | body | response | close | process | what it does |",
        rows,
    )
}

fn causes() -> String {
    let rows = Cause::ALL.iter().map(|cause| {
        let reasons = cause.reasons().iter().map(Reason::as_str);
        let reasons: Vec<String> = reasons.map(|reason| format!("`{reason}`")).collect();
        vec![
            format!("`{cause}`"),
            cause.sentence().to_owned(),
            if reasons.is_empty() {
                "none".to_owned()
            } else {
                reasons.join(", ")
            },
            cause.advice().to_owned(),
        ]
    });
    table(
        "| cause | what the sender of the RST had done | kernel's reason | what to do |",
        rows,
    )
}

#[test]
fn the_tables_of_settings_and_modes_are_current() {
    let tables = [
        ("settings: rstlab-proxy", markdown(&ProxyConfig::settings())),
        (
            "settings: rstlab-upstream",
            markdown(&UpstreamConfig::settings()),
        ),
        ("modes", modes()),
    ];
    assert_current("settings.md", &tables);
}

#[test]
fn the_table_of_causes_is_current() {
    assert_current("causes.md", &[("causes", causes())]);
}
