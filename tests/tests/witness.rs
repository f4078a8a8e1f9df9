//! `--witness` of the real programs: the evidence of each level, the privilege that it needs, and the traces that it
//! leaves. Needs root and a mounted tracefs: `cargo test -p rstlab-tests --features kernel --test witness`.

#![cfg(feature = "kernel")]
// Helpers of tests, outside of #[test].
#![allow(clippy::unwrap_used)]

use std::fs;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rstlab_tests::{
    InTime as _, Server, assert_contains, exchange, field, for_everybody, proxy, rstlab, text,
    trace_instances, upstream,
};
use rustix::process::{Signal, kill_process};
use tempfile::TempDir;

const POST: &[u8] =
    b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 22\r\n\r\n\
                      looked at by nobody ..";

/// Longer than a busy machine keeps the upstream waiting: the upstream has to read the head before the body comes.
const GAP: &str = "200ms";

/// One request through both programs; the log line of each.
fn reset(witness: &str, mode: &str) -> [String; 2] {
    let mut upstream = upstream(&[("UPSTREAM_WITNESS", witness), ("UPSTREAM_MODE", mode)]);
    let settings = [("PROXY_WITNESS", witness), ("PROXY_GAP", GAP)];
    let mut proxy = proxy(upstream.address, &settings);
    // The response may be cut or whole; the log says which.
    let _ = exchange(proxy.address, POST);
    let lines = [proxy.wait_for(" WARN "), upstream.wait_for(" closed ")];
    proxy.stop();
    upstream.stop();
    lines
}

fn known(line: &str) -> (Option<&str>, Option<&str>) {
    (field(line, "cause"), field(line, "known"))
}

#[test]
fn each_level_of_evidence_proves_what_it_can_and_no_more() {
    let [proxy, upstream] = reset("kernel", "lazy");
    let expected = (Some("data-after-close"), Some("proved"));
    assert_eq!((known(&proxy), known(&upstream)), (expected, expected));
    assert_eq!(field(&proxy, "reason"), Some("TCP_ABORT_ON_DATA"));
    assert_eq!(field(&proxy, "sent_by"), Some("upstream"));

    let [proxy, upstream] = reset("packets", "lazy");
    assert_eq!((known(&proxy), known(&upstream)), (expected, expected));
    assert_eq!(field(&proxy, "reason"), None, "{proxy}");

    // Only the kernel and the packets know that bytes came after the close.
    let [proxy, upstream] = reset("sockets", "lazy");
    let unknown = (Some("unknown"), Some("inferred"));
    assert_eq!((known(&proxy), known(&upstream)), (unknown, (None, None)));
}

/// A dual-stack listener sees its IPv4 clients at mapped addresses; the kernel and the proxy see their IPv4 addresses.
#[test]
fn the_records_of_a_dual_stack_upstream_match_those_of_the_proxy() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().to_str().unwrap();
    let mut upstream = upstream(&[
        ("UPSTREAM_LISTEN", "[::]:0"),
        ("UPSTREAM_WITNESS", "kernel"),
        ("UPSTREAM_RECORD", path),
    ]);
    let settings = [
        ("PROXY_WITNESS", "kernel"),
        ("PROXY_GAP", GAP),
        ("PROXY_RECORD", path),
    ];
    let ipv4 = SocketAddr::from(([127, 0, 0, 1], upstream.address.port()));
    let mut proxy = proxy(ipv4, &settings);
    let _ = exchange(proxy.address, POST);
    for line in [proxy.wait_for(" WARN "), upstream.wait_for(" closed ")] {
        let expected = (Some("data-after-close"), Some("proved"));
        assert_eq!(known(&line), expected, "{line}");
        assert_eq!(field(&line, "reason"), Some("TCP_ABORT_ON_DATA"), "{line}");
        assert_eq!(field(&line, "sent_by"), Some("upstream"), "{line}");
    }
    proxy.stop();
    upstream.stop();
    let show = rstlab(&["show", "--json", path]).output_in_time();
    let records = text(&show.stdout);
    assert_eq!(records.lines().count(), 1, "one connection: {records}");
}

#[test]
fn without_privilege_nothing_is_proved() {
    for witness in ["sockets", "counters"] {
        for mode in ["lazy", "delay", "abort", "truncate", "kill"] {
            for line in reset(witness, mode) {
                assert_ne!(field(&line, "known"), Some("proved"), "{line}");
            }
        }
    }
}

#[test]
fn a_user_without_privilege_gets_the_evidence_that_works_or_is_told_what_is_missing() {
    let directory = TempDir::new().unwrap();
    for name in ["rstlab-proxy", "rstlab-upstream"] {
        let program = for_everybody(name, directory.path());
        let command = |witness: &str| {
            let mut command = Command::new(&program);
            command.args(["--listen=127.0.0.1:0", "--witness", witness]);
            command.env_clear().uid(65534).gid(65534);
            command
        };
        for (witness, missing) in [("kernel", "for root only"), ("packets", "CAP_NET_RAW")] {
            let output = command(witness).output_in_time();
            assert_eq!(output.status.code(), Some(1), "{output:?}");
            let setting = format!("_WITNESS={witness}");
            assert_contains(text(&output.stderr), &[missing, &setting]);
        }
        let server = Server::start(command("auto"));
        let ended = server.stop();
        let line = &ended.log[0];
        assert_eq!(field(line, "witness"), Some("counters"), "{line}");
        assert_contains(line, &["not_more", "for root only", "CAP_NET_RAW"]);
    }
}

#[test]
fn a_program_removes_its_trace_instance_and_those_of_killed_programs() {
    let start = || upstream(&[("UPSTREAM_WITNESS", "kernel")]);
    for signal in [Signal::TERM, Signal::INT] {
        let server = start();
        let pid = server.pid();
        assert_eq!(trace_instances(pid), 1);
        kill_process(pid, signal).unwrap();
        assert_eq!(server.wait().status.code(), Some(0));
        assert_eq!(trace_instances(pid), 0, "{signal:?}");
    }
    let killed = start();
    let pid = killed.pid();
    kill_process(pid, Signal::KILL).unwrap();
    killed.wait();
    assert_eq!(trace_instances(pid), 1);
    start().stop();
    assert_eq!(trace_instances(pid), 0);
}

/// Both programs record in one directory, so the line of the proxy has the bytes that only the upstream knows of.
#[test]
fn proxy_and_upstream_share_what_they_know_without_privilege() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().to_str().unwrap();
    let upstream = upstream(&[
        ("UPSTREAM_RECORD", path),
        ("UPSTREAM_MODE", "delay"),
        ("UPSTREAM_CLOSE_DELAY", "600ms"),
    ]);
    let settings = [("PROXY_RECORD", path), ("PROXY_GAP", GAP)];
    let mut proxy = proxy(upstream.address, &settings);
    let _ = exchange(proxy.address, POST);
    let line = proxy.wait_for(" WARN ");
    assert_eq!(
        known(&line),
        (Some("unread-at-close"), Some("inferred")),
        "{line}"
    );
    assert_eq!(field(&line, "unread_bytes"), Some("22"), "{line}");
    proxy.stop();
    upstream.stop();
    let mut names: Vec<_> = fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names.len(), 3, "{names:?}");
    let endings = [".proxy.json", ".upstream.json", "upstream.ends.jsonl"];
    assert!(
        names
            .iter()
            .zip(endings)
            .all(|(name, end)| name.ends_with(end)),
        "{names:?}"
    );
}
