//! `--witness` of the real programs: what each level sees, what it needs, and what it leaves behind. Needs root and
//! a mounted tracefs: `cargo test -p rstlab-tests --features kernel --test witness`.

#![cfg(feature = "kernel")]
// Helpers of tests, outside of #[test].
#![allow(clippy::unwrap_used)]

use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use rstlab_tests::{Server, binary, exchange, field, proxy, trace_instances, upstream};
use rustix::process::{Signal, kill_process};
use tempfile::TempDir;

const POST: &[u8] =
    b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 22\r\n\r\n\
                      looked at by nobody ..";

/// An upstream that gets no processor for longer finds head and body together, and then it has read both.
const GAP: &str = "200ms";

/// One request through both programs; the log line of each.
fn reset(witness: &str, mode: &str) -> [String; 2] {
    let mut upstream = upstream(&[("UPSTREAM_WITNESS", witness), ("UPSTREAM_MODE", mode)]);
    let settings = [("PROXY_WITNESS", witness), ("PROXY_GAP", GAP)];
    let mut proxy = proxy(upstream.address, &settings);
    // Cut or whole: the log says.
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
fn each_level_says_what_it_can_and_no_more() {
    let [proxy, upstream] = reset("kernel", "lazy");
    let expected = (Some("data-after-close"), Some("proved"));
    assert_eq!((known(&proxy), known(&upstream)), (expected, expected));
    assert_eq!(field(&proxy, "reason"), Some("TCP_ABORT_ON_DATA"));
    assert_eq!(field(&proxy, "sent_by"), Some("upstream"));

    let [proxy, upstream] = reset("packets", "lazy");
    assert_eq!((known(&proxy), known(&upstream)), (expected, expected));
    assert_eq!(field(&proxy, "reason"), None, "{proxy}");

    // What came after the close only the kernel and the packets know.
    let [proxy, upstream] = reset("sockets", "lazy");
    let unknown = (Some("unknown"), Some("inferred"));
    assert_eq!((known(&proxy), known(&upstream)), (unknown, (None, None)));
}

/// A dual-stack listener knows its IPv4 clients by mapped addresses; the kernel and the proxy know them as they are.
#[test]
fn a_dual_stack_upstream_is_the_same_one() {
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
        assert_eq!(field(&line, "sent_by"), Some("upstream"), "{line}");
    }
    proxy.stop();
    upstream.stop();
    let show = Command::new(binary("rstlab"))
        .args(["show", "--json", path])
        .output()
        .unwrap();
    let records = String::from_utf8(show.stdout).unwrap();
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

/// A copy of a program that everybody may run: the directory of the build may be closed to others.
fn for_everybody(name: &str, directory: &TempDir) -> PathBuf {
    let copy = directory.path().join(name);
    // By a process of its own: what another test's thread starts meanwhile would inherit our descriptor of the copy,
    // and a program that is open for writing cannot be run (ETXTBSY).
    let status = Command::new("cp").arg(binary(name)).arg(&copy).status();
    assert!(status.unwrap().success());
    for path in [copy.as_path(), directory.path()] {
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }
    copy
}

#[test]
fn nobody_gets_what_works_or_hears_what_is_missing() {
    let directory = TempDir::new().unwrap();
    for name in ["rstlab-proxy", "rstlab-upstream"] {
        let program = for_everybody(name, &directory);
        let command = |witness: &str| {
            let mut command = Command::new(&program);
            command.args(["--listen=127.0.0.1:0", "--witness", witness]);
            command.env_clear().uid(65534).gid(65534);
            command
        };
        for (witness, missing) in [("kernel", "for root only"), ("packets", "CAP_NET_RAW")] {
            let output = command(witness).output().unwrap();
            let text = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(1), "{text}");
            assert!(text.contains(missing), "{text}");
            assert!(text.contains(&format!("_WITNESS={witness}")), "{text}");
        }
        let server = Server::start(command("auto"));
        let ended = server.stop();
        let line = &ended.log[0];
        assert_eq!(field(line, "witness"), Some("counters"), "{line}");
        for reason in ["not_more", "for root only", "CAP_NET_RAW"] {
            assert!(line.contains(reason), "{line}");
        }
    }
}

#[test]
fn the_trace_goes_with_the_program_and_a_stale_one_with_the_next() {
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

/// Both halves in one directory: the proxy's line has the bytes that only the upstream knows of.
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
