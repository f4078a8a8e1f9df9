//! `rstlab show` as a program, with records that a recorder has written.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rstlab_tests::{InTime as _, assert_contains, check_schema, json_lines, rstlab, text};
use rstlab_witness::{
    CaptureFile, Cause, Event, Keeping, Known, Lane, Packet, Process, Reason, Record, Recorder,
    Role, Side, State, Verdict, What, read_pcapng, write_pcapng,
};
use serde_json::Value;
use tempfile::TempDir;

fn proxy_half() -> Record {
    Record::from_json(include_str!("../../witness/tests/records/lazy.proxy.json")).unwrap()
}

fn upstream_half() -> Record {
    Record::from_json(include_str!(
        "../../witness/tests/records/lazy.upstream.json"
    ))
    .unwrap()
}

/// The same connection from another port, `later` seconds later.
fn later(mut record: Record, later: u64) -> Record {
    record
        .client
        .set_port(40_000 + u16::try_from(later).unwrap());
    record.unix_time += later;
    for event in &mut record.events {
        event.at_ns += later * 1_000_000_000;
    }
    record
}

/// A directory with these records of a proxy and of an upstream.
fn stored(proxy: Vec<Record>, upstream: Vec<Record>) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (role, records) in [(Role::Proxy, proxy), (Role::Upstream, upstream)] {
        let recorder = Recorder::to_dir(dir.path(), role, Keeping::default()).unwrap();
        records
            .into_iter()
            .for_each(|record| recorder.keep(&Arc::new(record)));
    }
    dir
}

fn show(dir: &Path, args: &[&str]) -> Output {
    rstlab(&["show"])
        .args(args)
        .current_dir(dir)
        .output_in_time()
}

fn json(output: &Output) -> Vec<Value> {
    json_lines(text(&output.stdout))
}

fn clients(output: &Output) -> Vec<String> {
    let records = json(output);
    let client = |record: &Value| record["client"].as_str().unwrap().to_owned();
    records.iter().map(client).collect()
}

#[test]
fn the_two_halves_of_a_connection_are_shown_as_one_timeline() {
    let dir = stored(vec![proxy_half()], vec![upstream_half()]);
    let output = show(dir.path(), &["."]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(
        text(&output.stdout),
        include_str!("../src/shared/timeline/lazy.txt")
    );
    // The names of the files give the same; a file that is named twice is shown once.
    let [proxy, upstream] =
        ["proxy", "upstream"].map(|role| format!("127.0.0.1_8000-127.0.0.1_32814.{role}.json"));
    let named = show(dir.path(), &[&upstream, &proxy, ".", &proxy]);
    assert_eq!(named.stdout, output.stdout);
    // The upstream's half does not show the events of the proxy.
    let half = show(dir.path(), &[&upstream]);
    let half = text(&half.stdout);
    assert!(
        half.contains("TIOCOUTQ = 581,772 unsent") && !half.contains("writev = 22"),
        "{half}"
    );
    assert!(half.contains("known     inferred"), "{half}");
    assert!(
        half.contains("half      the proxy's half is not among"),
        "{half}"
    );
}

/// Nobody writes the other half, and nobody asked the kernel.
#[test]
fn a_fresh_record_of_which_one_half_is_there_says_so() {
    let mut half = upstream_half();
    half.evidence.kernel = None;
    half.verdict = Verdict::of(&half.evidence, half.server);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    half.unix_time = now.as_secs();
    let output = show(stored(vec![], vec![half]).path(), &["."]);
    let shown = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let parts = [
        "half      the proxy's half is not written yet, or the proxy keeps no records (--record)",
        "cause     unknown. What was seen of the connection does not tell the cause.",
    ];
    assert_contains(shown, &parts);
}

/// `script` runs the program on a terminal of its own.
#[test]
fn a_timeline_on_a_terminal_of_80_columns_is_no_wider() {
    let dir = stored(vec![proxy_half()], vec![upstream_half()]);
    let program = rstlab(&[]).get_program().to_owned();
    let output = Command::new("script")
        .args([
            "-qec",
            "stty cols 80; exec \"$PROGRAM\" --color never show .",
            "/dev/null",
        ])
        .env("PROGRAM", program)
        .current_dir(dir.path())
        .output_in_time();
    let shown = text(&output.stdout);
    assert_contains(
        shown,
        &["RST ════", "client    got the beginning of a response"],
    );
    let columns = |line: &str| line.trim_end().chars().count();
    assert_eq!(shown.lines().map(columns).max(), Some(80), "{shown}");
}

#[test]
fn show_prints_records_as_the_schema_says_and_can_show_them_again() {
    let dir = stored(vec![proxy_half()], vec![upstream_half()]);
    let output = show(dir.path(), &[".", "--json"]);
    let [record] = json(&output).try_into().unwrap();
    check_schema("record", &record).unwrap();
    assert_eq!(record["verdict"]["unread_bytes"], 0);
    assert_eq!(record["verdict"]["known"], "proved");
    assert_eq!(record["events"].as_array().unwrap().len(), 35);
    fs::write(dir.path().join("merged"), &output.stdout).unwrap();
    let again = show(dir.path(), &["merged", "--json"]);
    assert_eq!(again.stdout, output.stdout);
}

#[test]
fn the_schema_of_records_allows_every_word_and_no_wrong_field() {
    let process = Process { name: None, pid: 7 };
    let whats = [
        What::Closed {
            from: Side::Client,
            state: State::LastAck,
            by: process.clone(),
        },
        What::Killed { process },
        What::Reset {
            from: Side::Client,
            reason: None,
            state: Some(State::Other("x".into())),
        },
    ];
    let mut record = proxy_half();
    record.events.extend(whats.map(|what| Event {
        at_ns: u64::MAX,
        lane: Lane::Kernel,
        what,
    }));
    record.verdict.reason = Some(Reason::Other("0x1b".into()));
    for cause in Cause::ALL {
        for known in [Known::Inferred, Known::Counted, Known::Proved] {
            (record.verdict.cause, record.verdict.known) = (cause, known);
            let value = serde_json::to_value(&record).unwrap();
            check_schema("record", &value).unwrap();
        }
    }
    check_schema("record", &serde_json::to_value(upstream_half()).unwrap()).unwrap();
    let mut value = serde_json::to_value(&record).unwrap();
    value["events"][3]["flags"] = 7.into();
    let error = check_schema("record", &value).unwrap_err();
    assert!(error.contains("/events/3"), "{error}");
}

#[test]
fn a_broken_record_is_named_and_the_others_are_shown() {
    let dir = stored(vec![proxy_half()], vec![upstream_half()]);
    fs::write(
        dir.path().join("broken.json"),
        "{\n\"version\": 1,\n\"\x1b[31m\": }",
    )
    .unwrap();
    fs::write(dir.path().join("old.json"), "{\"version\": 0}").unwrap();
    fs::write(dir.path().join("notes.txt"), "mine").unwrap();
    let output = show(dir.path(), &["."]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        text(&output.stdout),
        include_str!("../src/shared/timeline/lazy.txt")
    );
    let [broken, old] = text(&output.stderr)
        .lines()
        .collect::<Vec<_>>()
        .try_into()
        .unwrap();
    assert!(
        broken.starts_with("rstlab: ./broken.json: not a record: "),
        "{broken}"
    );
    assert!(
        broken.contains(" at line 3 column ") && !broken.contains('\x1b'),
        "{broken}"
    );
    assert_eq!(
        old,
        "rstlab: ./old.json: a record of version 0; this program reads version 1"
    );
}

/// A device may have no end, and a FIFO waits for a writer.
#[test]
fn a_path_that_is_no_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["fifo", "fifo.json", "fifo.pcapng"] {
        let made = Command::new("mkfifo").arg(dir.path().join(name)).status();
        assert!(made.unwrap().success());
        let output = show(dir.path(), &[name]);
        assert_eq!(output.status.code(), Some(1));
        let expected = format!("rstlab: {name}: neither a file nor a directory\n");
        assert_eq!(text(&output.stderr), expected);
    }
    let output = show(dir.path(), &["/dev/zero"]);
    assert!(text(&output.stderr).contains("/dev/zero: neither a file"));
}

#[test]
fn show_says_why_there_is_nothing_to_show() {
    let dir = tempfile::tempdir().unwrap();
    let output = show(dir.path(), &[".", "gone.json"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        text(&output.stderr),
        "rstlab: .: no records (*.json) in this directory\n\
         rstlab: gone.json: No such file or directory (os error 2)\n"
    );
    let dir = stored(vec![proxy_half()], vec![]);
    let output = show(dir.path(), &[".", "--cause=killed"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        text(&output.stderr),
        "rstlab: none of 1 records has the cause killed\n"
    );
}

#[test]
fn the_oldest_record_comes_first_and_the_newest_can_be_asked_for() {
    let mut killed = later(proxy_half(), 2);
    killed.verdict.cause = Cause::Killed;
    let proxy = vec![later(proxy_half(), 3), later(proxy_half(), 1), killed];
    let dir = stored(proxy, vec![later(upstream_half(), 3)]);
    let [first, second, third] = [1, 2, 3].map(|n| format!("127.0.0.1:4000{n}"));
    let all = show(dir.path(), &[".", "--json"]);
    assert_eq!(clients(&all), [first, second.clone(), third.clone()]);
    let last = show(dir.path(), &[".", "--json", "--last=1"]);
    assert_eq!(clients(&last), [third]);
    let killed = show(dir.path(), &[".", "--json", "--cause=killed"]);
    assert_eq!(clients(&killed), [second]);
    let pages = show(dir.path(), &["."]);
    assert_eq!(text(&pages.stdout).matches("\n\n\nPOST /\n").count(), 2);
}

#[test]
fn halves_of_different_connections_stay_apart() {
    // A minute later another connection used the same port.
    let mut upstream = later(upstream_half(), 60);
    upstream.client = proxy_half().client;
    let dir = stored(vec![proxy_half()], vec![upstream]);
    assert_eq!(json(&show(dir.path(), &[".", "--json"])).len(), 2);
    // Two proxies may record at the same moment.
    let other = stored(vec![proxy_half()], vec![]);
    let other = other.path().to_str().unwrap();
    let dir = stored(vec![proxy_half()], vec![]);
    assert_eq!(json(&show(dir.path(), &[".", other, "--json"])).len(), 2);
}

#[test]
fn show_draws_one_record_as_svg() {
    let dir = stored(vec![proxy_half(), later(proxy_half(), 1)], vec![]);
    let output = show(dir.path(), &[".", "--svg=one.svg"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        text(&output.stderr),
        "rstlab: --svg draws one record, and here are 2: name the files of one, or add --last 1\n"
    );
    let output = show(dir.path(), &[".", "--svg=one.svg", "--last=1"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let svg = fs::read_to_string(dir.path().join("one.svg")).unwrap();
    let document = roxmltree::Document::parse(&svg).unwrap();
    assert!(svg.contains("proxy 127.0.0.1:40001 → upstream 127.0.0.1:8000"));
    assert!(
        document
            .root_element()
            .has_tag_name(("http://www.w3.org/2000/svg", "svg"))
    );
}

#[test]
fn bad_settings_of_show_are_all_named() {
    let output = show(Path::new("."), &[".", "--last=0", "--cause=magic"]);
    assert_eq!(output.status.code(), Some(2));
    let error = text(&output.stderr);
    let parts = [
        "2 bad settings",
        "--last=\"0\"",
        "--cause=\"magic\"; allowed: unread-at-close, ",
    ];
    assert_contains(error, &parts);
}

/// The packets of a capture file that `wanted` takes, as a file.
fn captured(file: &[u8], wanted: impl Fn(&Packet) -> bool) -> Vec<u8> {
    let path = tempfile::NamedTempFile::new().unwrap();
    fs::write(path.path(), file).unwrap();
    let read = read_pcapng(path.path()).unwrap();
    let found: CaptureFile = read.packets().filter(wanted).collect();
    let mut file = Vec::new();
    write_pcapng(&mut file, &found.conversation(0), "").unwrap();
    file
}

/// A capture file with this many connections, each opened and reset.
fn many_resets(connections: u32) -> Vec<u8> {
    let block = |kind: u32, body: &[u8]| {
        let length = (body.len() as u32 + 12).to_ne_bytes();
        [&kind.to_ne_bytes(), &length, body, &length].concat()
    };
    let section = [0x1a2b_3c4d_u32, 1, u32::MAX, u32::MAX].map(u32::to_ne_bytes);
    // Frames begin with the IP header (LINKTYPE_RAW).
    let interface = [101_u32, 0].map(u32::to_ne_bytes);
    let mut file = block(0x0a0d_0d0a, &section.concat());
    file.extend(block(1, &interface.concat()));
    for connection in 0..connections {
        let client = [10, 1, (connection >> 16) as u8, (connection >> 8) as u8];
        let client_port = [200, connection as u8];
        let mut segment = |to_server: bool, numbers: [u32; 2], flags: u8| {
            let mut ends = [(client, client_port), ([10, 0, 0, 1], [0, 80])];
            if !to_server {
                ends.reverse();
            }
            let [(from, from_port), (to, to_port)] = ends;
            let ip = [0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0];
            let numbers = numbers.map(u32::to_be_bytes).concat();
            let rest = [0x50, flags, 2, 0, 0, 0, 0, 0];
            let ports = [from_port, to_port].concat();
            let packet = [&ip[..], &from, &to, &ports, &numbers, &rest].concat();
            let before = [0, 0, connection, 40, 40].map(u32::to_ne_bytes).concat();
            file.extend(block(6, &[before, packet].concat()));
        };
        segment(true, [99, 0], 0x02);
        segment(false, [499, 100], 0x12);
        segment(false, [500, 100], 0x14);
    }
    file
}

#[test]
fn a_capture_of_many_connections_is_shown_in_little_memory() {
    const CONNECTIONS: u32 = 40_000;
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("many.pcapng"), many_resets(CONNECTIONS)).unwrap();
    let mut child = rstlab(&["show", "many.pcapng", "--json"])
        .current_dir(dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(
        lines.by_ref().take(CONNECTIONS as usize / 2).count(),
        20_000
    );
    // The other half does not fit into the pipe, so the program still runs.
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.unwrap().trim().trim_end_matches(" kB");
    assert_eq!(lines.count(), 20_000);
    assert!(child.wait().unwrap().success());
    // It was 110 MiB when each packet and each record was kept as the program uses them.
    let peak = peak.parse::<u32>().unwrap() / 1024;
    assert!(peak < 48, "{peak} MiB");
}

/// The capture is of the kind that a recorder leaves beside a record; `rstlab trace --pcap` wrote it.
#[test]
fn a_capture_file_is_shown_as_far_as_it_proves_something() {
    let dir = tempfile::tempdir().unwrap();
    let capture = include_bytes!("captures/lazy.pcapng");
    fs::write(dir.path().join("lazy.pcapng"), capture).unwrap();
    fs::write(
        dir.path().join("drain"),
        include_bytes!("captures/drain.pcapng"),
    )
    .unwrap();
    let output = show(dir.path(), &["lazy.pcapng"]);
    let shown = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_contains(
        shown,
        &[
            "◄════════ RST ════════╡",
            "cause     data-after-close",
            "known     proved, by the packets",
        ],
    );
    let [record] = json(&show(dir.path(), &["lazy.pcapng", "--json"]))
        .try_into()
        .unwrap();
    check_schema("record", &record).unwrap();
    // A file with the RSTs only, as `tcpdump 'tcp[tcpflags] & tcp-rst != 0'` leaves them.
    let resets = captured(capture, |packet| packet.flags.rst());
    fs::write(dir.path().join("rst.pcapng"), resets).unwrap();
    let shown = show(dir.path(), &["rst.pcapng"]);
    assert_contains(
        text(&shown.stdout),
        &[
            "cause     gone",
            "known     inferred, nothing that was seen proves it: packets are missing",
            "RST by    the upstream, ",
        ],
    );
    // A connection that was not reset is shown with --all only.
    let output = show(dir.path(), &["drain"]);
    assert_eq!(output.status.code(), Some(1));
    assert_contains(
        text(&output.stderr),
        &["drain: none of 1 connections was reset; --all"],
    );
    let output = show(dir.path(), &["drain", "lazy.pcapng", "--all"]);
    assert_eq!(text(&output.stdout).matches("cause     ").count(), 2);
    assert!(text(&output.stdout).contains("cause     no-reset"));
    // A directory's captures belong to its records.
    let output = show(dir.path(), &["."]);
    assert!(text(&output.stderr).contains("no records"));
    // Files that are cut or are no capture are named.
    fs::write(dir.path().join("cut.pcapng"), &capture[..300]).unwrap();
    fs::write(dir.path().join("other.pcapng"), "no capture").unwrap();
    for (name, told) in [
        ("cut.pcapng", "cut.pcapng ends in the middle of block 3"),
        ("other.pcapng", "other.pcapng is no pcapng file"),
    ] {
        let output = show(dir.path(), &[name]);
        assert_eq!(output.status.code(), Some(1));
        assert_contains(text(&output.stderr), &[told]);
    }
}
