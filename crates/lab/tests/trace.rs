//! `rstlab trace` as its user runs it. Without privileges it needs nothing; with the feature `kernel` it asks the
//! kernel and the packets (root, tracefs, tshark).

#![allow(clippy::unwrap_used)]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use support::schema::check;

fn trace(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rstlab"))
        .arg("trace")
        .args(args)
        .env_remove("LOG")
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn shown(args: &[&str]) -> String {
    let output = trace(args);
    let shown = text(&output.stdout);
    assert!(
        output.status.success(),
        "{args:?}\n{shown}{}",
        text(&output.stderr)
    );
    for line in shown.lines() {
        assert!(line.chars().count() <= 100, "{line}");
    }
    shown.to_owned()
}

/// Each mode, with so long a gap that the upstream has closed, or waits, when the body comes.
const MODES: [(&str, &[&str]); 8] = [
    (
        "lazy",
        &["data-after-close", "late-data", "unread-at-close"],
    ),
    ("drain", &["no-reset"]),
    ("cap", &["no-reset"]),
    ("linger", &["no-reset"]),
    (
        "delay",
        &["unread-at-close", "data-after-close", "late-data"],
    ),
    ("abort", &["linger-zero"]),
    ("truncate", &["closed-without-answer"]),
    ("idle-close", &["keep-alive-race"]),
];

#[test]
fn each_mode_shows_what_it_does_without_any_privilege() {
    for (mode, causes) in MODES {
        let shown = shown(&["--mode", mode, "--gap", "100ms", "--witness", "sockets"]);
        let cause = shown
            .lines()
            .find_map(|line| line.strip_prefix("cause     "));
        let cause = cause.unwrap();
        let told = causes
            .iter()
            .any(|word| cause.starts_with(&format!("{word}.")));
        assert!(told, "{mode}\n{shown}");
        assert!(shown.contains("known     inferred"), "{mode}\n{shown}");
        // Three of the five lanes speak, and what is missing is said.
        for part in [
            "POST /, 22 bytes",
            "(head)",
            "recv = ",
            "close",
            "not seen  stronger",
        ] {
            assert!(shown.contains(part), "{mode}: {part}\n{shown}");
        }
        let whole = shown.contains("200, 614,400 bytes:");
        let expected = matches!(mode, "drain" | "cap" | "linger" | "delay");
        assert_eq!(whole, expected, "{mode}\n{shown}");
        let second = mode == "idle-close";
        assert_eq!(shown.contains("502, "), second, "{mode}\n{shown}");
        assert_eq!(shown.contains("accept4"), !second, "{mode}\n{shown}");
    }
}

#[test]
fn the_proxy_s_two_writes_are_head_and_body() {
    let shown = shown(&["--body", "1000", "--witness", "sockets"]);
    for part in [
        "POST /, 1,000 bytes",
        "writev = 185 (head)",
        "recv = 185 (head)",
        "writev = 1,000 (body)",
    ] {
        assert!(shown.contains(part), "{part}\n{shown}");
    }
}

#[test]
fn json_is_as_the_schema_says_and_the_picture_is_xml() {
    let dir = tempfile::tempdir().unwrap();
    let svg = dir.path().join("a.svg");
    let schema: Value = serde_json::from_str(include_str!("../schema/record.json")).unwrap();
    for mode in ["lazy", "drain", "idle-close"] {
        let output = trace(&["--mode", mode, "--json", "--svg", svg.to_str().unwrap()]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let record: Value = serde_json::from_slice(&output.stdout).unwrap();
        check(&record, &schema).unwrap();
        let lanes: Vec<_> = ["client", "proxy", "upstream"]
            .map(|lane| {
                let events = record["events"].as_array().unwrap().iter();
                events.filter(|event| event["lane"] == lane).count()
            })
            .into();
        assert!(lanes.iter().all(|events| *events > 0), "{lanes:?}");
        let picture = std::fs::read_to_string(&svg).unwrap();
        let picture = roxmltree::Document::parse(&picture).unwrap();
        let words: String = picture
            .descendants()
            .filter_map(|node| node.text())
            .collect();
        assert!(words.contains("POST /, 22 bytes"), "{words}");
    }
}

#[test]
fn what_cannot_be_is_said() {
    let output = trace(&[
        "--mode",
        "lzy",
        "--gap",
        "1",
        "--body",
        "2GiB",
        "--witness",
        "all",
    ]);
    assert_eq!(output.status.code(), Some(2));
    let told = text(&output.stderr);
    for part in [
        "4 bad settings",
        "--mode=\"lzy\"; allowed: lazy, drain",
        "--gap",
        "--body",
        "--witness",
    ] {
        assert!(told.contains(part), "{told}");
    }
    // No packets without a capture, and no directory.
    let output = trace(&["--witness", "sockets", "--pcap", "a.pcapng"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("CAP_NET_RAW"),
        "{}",
        text(&output.stderr)
    );
    let output = trace(&["--witness", "sockets", "--svg", "/nowhere/a.svg"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("/nowhere/a.svg"));
}

/// A copy of the program.
///
/// By a process of its own: what another test's thread starts meanwhile would inherit our descriptor of the copy, and a
/// program that is open for writing cannot be run (ETXTBSY).
fn copy_to(dir: &Path) -> PathBuf {
    let copy = dir.join("rstlab");
    let status = Command::new("cp")
        .arg(env!("CARGO_BIN_EXE_rstlab"))
        .arg(&copy)
        .status();
    assert!(status.unwrap().success());
    copy
}

/// Mode kill needs a program that is not beside this copy.
#[test]
fn without_the_upstream_s_program_nothing_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let copy = copy_to(dir.path());
    let output = Command::new(&copy)
        .args(["trace", "--mode", "kill"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = text(&output.stderr);
    assert!(
        told.contains("rstlab-upstream is not there: build it"),
        "{told}"
    );
}

#[cfg(feature = "kernel")]
mod kernel {
    use std::os::unix::process::CommandExt as _;

    use super::*;

    #[test]
    fn each_cause_is_proved_and_all_five_lanes_speak() {
        for (mode, causes) in MODES {
            let shown = shown(&["--mode", mode, "--gap", "100ms"]);
            let word = |word| shown.contains(&format!("cause     {word}."));
            assert!(causes.iter().any(word), "{mode}\n{shown}");
            assert!(shown.contains("known     proved"), "{mode}\n{shown}");
            assert!(!shown.contains("not seen"), "{mode}\n{shown}");
            let resets = shown.matches("══ RST").count() > 0;
            let clean = matches!(mode, "drain" | "cap" | "linger" | "truncate");
            assert_eq!(resets, !clean, "{mode}\n{shown}");
            // The kernel's lane and the wire's.
            assert!(shown.contains("upstream → "), "{mode}\n{shown}");
            assert!(shown.contains(" bytes ─"), "{mode}\n{shown}");
        }
    }

    #[test]
    fn wireshark_reads_the_packets_and_show_too() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.pcapng");
        let file = file.to_str().unwrap();
        shown(&["--gap", "100ms", "--pcap", file]);
        let tshark = |args: &[&str]| {
            let output = Command::new("tshark")
                .args(["-r", file])
                .args(args)
                .output()
                .unwrap();
            assert!(output.status.success(), "{}", text(&output.stderr));
            text(&output.stdout).to_owned()
        };
        let fields = [
            "-T",
            "fields",
            "-e",
            "tcp.flags.reset",
            "-e",
            "frame.comment",
        ];
        let reset = tshark(&[&["-Y", "tcp.flags.reset==1"], &fields[..]].concat());
        assert!(reset.contains(", proved (TCP_"), "{reset}");
        assert!(!tshark(&["-V"]).contains("Malformed"));
        let show = Command::new(env!("CARGO_BIN_EXE_rstlab"))
            .args(["show", file])
            .output()
            .unwrap();
        let show = text(&show.stdout);
        assert!(
            show.contains("known     proved, by the packets") && show.contains("══ RST"),
            "{show}"
        );
    }

    #[test]
    fn who_may_not_look_is_told_what_is_missing() {
        // nobody's, on every Linux.
        let nobody = 65_534;
        let dir = tempfile::tempdir().unwrap();
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(dir.path(), open).unwrap();
        let copy = super::copy_to(dir.path());
        let output = Command::new(&copy)
            .arg("trace")
            .uid(nobody)
            .gid(nobody)
            .output()
            .unwrap();
        let shown = text(&output.stdout);
        assert!(output.status.success(), "{shown}{}", text(&output.stderr));
        assert!(!shown.contains("proved"), "{shown}");
        for part in [
            "not seen  kernel: ",
            "packets: capturing packets needs CAP_NET_RAW",
        ] {
            assert!(shown.contains(part), "{part}\n{shown}");
        }
    }
}
