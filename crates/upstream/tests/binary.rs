//! The program: its exit codes, its log, its health check.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, ChildStderr, Command, Output, Stdio};

use common::{BODY, post};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

fn program(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rstlab-upstream"));
    command.args(args).env_clear();
    command
}

fn output(args: &[&str]) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = program(args).output().unwrap();
    (status.code(), String::from_utf8(stderr).unwrap())
}

/// A server on a free port. Killed when a test fails.
struct Server {
    child: Child,
    log: Lines<BufReader<ChildStderr>>,
    address: String,
}

impl Server {
    fn start(args: &[&str]) -> Self {
        let mut child = program(args)
            .env("UPSTREAM_LISTEN", "127.0.0.1:0")
            .env("UPSTREAM_WITNESS", "sockets")
            .env("LOG_FORMAT", "json")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut server = Server {
            child,
            log,
            address: String::new(),
        };
        let listening = server.line();
        assert_eq!(listening["message"], "listening");
        listening["address"]
            .as_str()
            .unwrap()
            .clone_into(&mut server.address);
        server
    }

    fn line(&mut self) -> Value {
        serde_json::from_str(&self.log.next().unwrap().unwrap()).unwrap()
    }

    fn stop(mut self, signal: Signal) -> Option<i32> {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Fails if it has ended, and that is well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
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
    let mut server = Server::start(&["--mode", "drain", "--response-bytes", "1KiB"]);
    let mut client = TcpStream::connect(&server.address).unwrap();
    client.write_all(post(22).as_bytes()).unwrap();
    client.write_all(BODY).unwrap();
    client.read_to_end(&mut Vec::new()).unwrap();

    let line = server.line();
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
    assert_eq!(server.stop(Signal::TERM), Some(0));
}

#[test]
fn health_says_whether_a_server_answers_and_leaves_no_line() {
    let mut server = Server::start(&[]);
    assert_eq!(output(&["health", "--listen", &server.address]).0, Some(0));
    kill_process(Pid::from_child(&server.child), Signal::INT).unwrap();
    let next = server.line()["message"].as_str().unwrap().to_owned();
    assert!(next.starts_with("SIGINT"), "{next}");
    let address = server.address.clone();
    assert_eq!(server.child.wait().unwrap().code(), Some(0));

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
    let help = program(&["--help"]).output().unwrap();
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
