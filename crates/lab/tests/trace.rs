//! `rstlab trace` as its user runs it. The tests with the feature `kernel` ask the kernel and the packets, and need root,
//! tracefs and tshark.

#![allow(clippy::unwrap_used)]

use std::process::{Command, Output};

use rstlab_tests::{InTime as _, assert_contains, check_schema, for_everybody, rstlab, text};
use serde_json::Value;

fn trace(args: &[&str]) -> Output {
    rstlab(&["trace"]).args(args).output_in_time()
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

/// Each mode with the causes that it may show, if the gap is so long that the upstream has closed, or waits for the body,
/// when the body comes.
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
        // Three of the five lanes have events, and the last lines say which evidence is missing.
        assert_contains(
            &shown,
            &[
                "POST /, 22 bytes",
                "(head)",
                "recv = ",
                "close",
                "not seen  stronger",
            ],
        );
        let whole = shown.contains("200, 614,400 bytes:");
        let expected = matches!(mode, "drain" | "cap" | "linger" | "delay");
        assert_eq!(whole, expected, "{mode}\n{shown}");
        let second = mode == "idle-close";
        assert_eq!(shown.contains("502, "), second, "{mode}\n{shown}");
        assert_eq!(shown.contains("accept4"), !second, "{mode}\n{shown}");
    }
}

#[test]
fn trace_shows_the_proxy_s_two_writes_as_head_and_body() {
    // Long enough for the upstream to read the head alone, on a busy machine too.
    let shown = shown(&["--body", "1000", "--gap=300ms", "--witness", "sockets"]);
    assert_contains(
        &shown,
        &[
            "POST /, 1,000 bytes",
            "writev = 185 (head)",
            "recv = 185 (head)",
            "writev = 1,000 (body)",
        ],
    );
}

#[test]
fn trace_prints_a_record_as_the_schema_says_and_draws_xml() {
    let dir = tempfile::tempdir().unwrap();
    let svg = dir.path().join("a.svg");
    for mode in ["lazy", "drain", "idle-close"] {
        let output = trace(&["--mode", mode, "--json", "--svg", svg.to_str().unwrap()]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let record: Value = serde_json::from_slice(&output.stdout).unwrap();
        check_schema("record", &record).unwrap();
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
fn trace_tries_again_until_the_outcome_asked_for() {
    let shown = shown(&["--gap", "100ms", "--witness", "sockets"]);
    assert_contains(&shown, &["tries     ", ", until the response was cut"]);
    // A response that fits in the buffers is never cut, and a request without a body is not reset.
    for (args, parts) in [
        (
            ["--response-bytes=1024", "--gap=20ms"],
            ["20, and no response was cut: ", "larger --response-bytes"],
        ),
        (
            ["--body=0", "--gap=0ms"],
            ["20, and no response was cut: 20 whole", "a --body over 0"],
        ),
    ] {
        let output = trace(&[&["--witness=sockets"], &args[..]].concat());
        assert_eq!(output.status.code(), Some(1));
        assert_contains(text(&output.stdout), &parts);
    }
    let any = ["--body=0", "--until=any", "--witness=sockets"];
    let output = trace(&[&any[..], &["--json"]].concat());
    assert_eq!(output.status.code(), Some(0));
    assert!(!text(&output.stderr).contains("tries"));
}

#[test]
fn trace_says_what_it_cannot_do() {
    let output = trace(&[
        "--mode",
        "lzy",
        "--gap",
        "1",
        "--body",
        "2GiB",
        "--until",
        "reset",
        "--witness",
        "all",
    ]);
    assert_eq!(output.status.code(), Some(2));
    assert_contains(
        text(&output.stderr),
        &[
            "5 bad settings",
            "--until=\"reset\"; allowed: cut, harmless, whole, any",
            "--mode=\"lzy\"; allowed: lazy, drain",
            "--gap",
            "--body",
            "--witness",
        ],
    );
    // --pcap needs a capture, and --svg a directory that exists.
    let output = trace(&["--witness", "sockets", "--pcap", "a.pcapng"]);
    assert_eq!(output.status.code(), Some(1));
    assert_contains(text(&output.stderr), &["CAP_NET_RAW"]);
    let output = trace(&["--witness", "sockets", "--svg", "/nowhere/a.svg"]);
    assert_eq!(output.status.code(), Some(1));
    assert_contains(text(&output.stderr), &["cannot write /nowhere/a.svg"]);
    assert!(output.stdout.is_empty(), "known before the work");
}

/// Mode kill needs the program rstlab-upstream, which is not beside this copy.
#[test]
fn without_the_upstream_s_program_nothing_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(for_everybody("rstlab", dir.path()))
        .args(["trace", "--mode", "kill"])
        .output_in_time();
    assert_eq!(output.status.code(), Some(1));
    let part = "rstlab-upstream is not there: build it";
    assert_contains(text(&output.stderr), &[part]);
}

#[cfg(feature = "kernel")]
mod kernel {
    use std::os::unix::process::CommandExt as _;

    use super::*;

    #[test]
    fn each_cause_is_proved_and_all_five_lanes_have_events() {
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
    fn wireshark_and_show_read_the_packets_of_a_trace() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.pcapng");
        let file = file.to_str().unwrap();
        shown(&["--gap", "100ms", "--pcap", file]);
        let tshark = |args: &[&str]| {
            let output = Command::new("tshark")
                .args(["-r", file])
                .args(args)
                .output_in_time();
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
        let show = rstlab(&["show", file]).output_in_time();
        let parts = ["known     proved, by the packets", "══ RST"];
        assert_contains(text(&show.stdout), &parts);
    }

    /// In a network namespace whose send buffers do not grow, as between containers and with little memory for TCP.
    #[test]
    fn a_response_is_cut_though_the_kernel_s_own_send_buffers_are_small() {
        let limit = std::fs::read_to_string("/proc/sys/net/core/wmem_max").unwrap();
        if limit.trim().parse::<u64>().unwrap() < 1 << 20 {
            eprintln!("NOT TESTED: net.core.wmem_max is below the default of UPSTREAM_SNDBUF");
            return;
        }
        let output = Command::new("unshare")
            .args(["--net", "sh", "-ec"])
            .arg(
                "ip link set lo up\n\
                 echo 4096 16384 65536 > /proc/sys/net/ipv4/tcp_wmem\n\
                 exec \"$0\" trace --gap 100ms --witness sockets",
            )
            .arg(rstlab_tests::binary("rstlab"))
            .output_in_time();
        let shown = text(&output.stdout);
        assert!(output.status.success(), "{shown}{}", text(&output.stderr));
        assert_contains(shown, &[", until the response was cut"]);
    }

    #[test]
    fn trace_without_privilege_says_what_is_missing() {
        // The number of the user nobody on every Linux.
        let nobody = 65_534;
        let dir = tempfile::tempdir().unwrap();
        let output = Command::new(for_everybody("rstlab", dir.path()))
            .arg("trace")
            .uid(nobody)
            .gid(nobody)
            .output_in_time();
        let shown = text(&output.stdout);
        assert!(output.status.success(), "{shown}{}", text(&output.stderr));
        assert!(!shown.contains("proved"), "{shown}");
        let needed = "packets: capturing packets needs CAP_NET_RAW";
        assert_contains(shown, &["not seen  kernel: ", needed]);
    }
}
