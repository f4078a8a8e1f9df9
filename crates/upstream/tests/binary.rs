//! The program: its exit codes, its log, its health check.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

use common::{BODY, post};
use rstlab_tests::{InTime as _, Server, connect};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

fn program(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rstlab-upstream"));
    command.args(args).env_clear();
    command
}

fn output(args: &[&str]) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = program(args).output_in_time();
    (status.code(), String::from_utf8(stderr).unwrap())
}

/// A server on a free port that logs JSON.
fn server(args: &[&str]) -> Server {
    let mut command = program(args);
    command
        .env("UPSTREAM_LISTEN", "127.0.0.1:0")
        .env("UPSTREAM_WITNESS", "sockets")
        .env("LOG_FORMAT", "json");
    Server::start(command)
}

/// The next line of a log.
fn line(server: &mut Server) -> Value {
    serde_json::from_str(&server.line()).unwrap()
}

#[test]
fn bad_settings_are_named_all_at_once_and_exit_2() {
    let (code, text) = output(&["--mode=lzy", "--think=1", "--status=99"]);
    assert_eq!(code, Some(2));
    let expected = [
        "rstlab-upstream: 3 bad settings",
        "UPSTREAM_MODE=\"lzy\"",
        "UPSTREAM_STATUS=\"99\"",
        "UPSTREAM_THINK=\"1\"",
    ];
    for (line, expected) in text.lines().zip(expected) {
        assert!(line.contains(expected), "{text}");
    }
    assert_eq!(text.lines().count(), 4);
    assert_eq!(output(&["--mod=lazy"]).0, Some(2));
}

#[test]
fn a_port_in_use_is_one_clear_line_and_exit_1() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, text) = output(&["--listen", &address]);
    assert_eq!(code, Some(1));
    let expected = format!(
        "rstlab-upstream: cannot listen on {address}; UPSTREAM_LISTEN sets another address: \
         Address already in use (os error 98)\n"
    );
    assert_eq!(text, expected);
}

#[test]
fn one_line_tells_how_a_connection_went() {
    let mut server = server(&["--mode", "drain", "--response-bytes", "1KiB"]);
    let mut client = connect(server.address).unwrap();
    client.write_all(post(22).as_bytes()).unwrap();
    client.write_all(BODY).unwrap();
    client.read_to_end(&mut Vec::new()).unwrap();

    let line = line(&mut server);
    let peer = client.local_addr().unwrap().to_string();
    for (field, value) in [
        ("level", Value::from("INFO")),
        ("message", "closed".into()),
        ("peer", peer.into()),
        ("mode", "drain".into()),
        ("status", 200.into()),
        ("head_bytes", post(22).len().into()),
        ("body_bytes", 22.into()),
        ("unread_bytes", 0.into()),
        ("lingered_bytes", 0.into()),
        ("peer_state", "open".into()),
    ] {
        assert_eq!(line[field], value, "{field} in {line}");
    }
    assert!(line["unsent_bytes"].is_u64());
    assert_eq!(server.stop().status.code(), Some(0));
}

#[test]
fn health_says_whether_a_server_answers_and_leaves_no_line() {
    let mut server = server(&[]);
    let address = server.address.to_string();
    assert_eq!(output(&["health", "--listen", &address]).0, Some(0));
    server.signal(Signal::INT);
    let next = line(&mut server)["message"].as_str().unwrap().to_owned();
    assert!(next.starts_with("SIGINT"), "{next}");
    assert_eq!(server.wait().status.code(), Some(0));

    let (code, text) = output(&["health", "--listen", &address]);
    assert_eq!(code, Some(1));
    assert!(
        text.contains(&format!("cannot connect to {address}")),
        "{text}"
    );
}

#[test]
fn a_log_that_nobody_reads_does_not_keep_it_from_stopping() {
    let mut child = program(&["--listen=127.0.0.1:0"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Its handlers are in place once it says that it listens.
    let mut log = BufReader::new(child.stderr.take().unwrap());
    log.read_line(&mut String::new()).unwrap();
    drop(log);
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn help_names_every_mode_and_setting() {
    let help = program(&["--help"]).output_in_time();
    assert!(help.status.success());
    let help = String::from_utf8(help.stdout).unwrap();
    for part in [
        "lazy ",
        "drain ",
        "cap ",
        "delay ",
        "linger ",
        "abort ",
        "truncate ",
        "idle-close ",
        "kill ",
        "health ",
        "UPSTREAM_LISTEN=",
        "UPSTREAM_MODE=",
        "UPSTREAM_RESPONSE_BYTES=",
        "UPSTREAM_STATUS=",
        "UPSTREAM_THINK=",
        "UPSTREAM_MAX_BODY=",
        "UPSTREAM_CLOSE_DELAY=",
        "UPSTREAM_LINGER_TIMEOUT=",
        "UPSTREAM_LINGER_BYTES=",
        "LOG=",
        "LOG_FORMAT=",
    ] {
        assert!(help.contains(part), "{part} is missing in:\n{help}");
    }
}
