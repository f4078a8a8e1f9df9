//! The programs as their user runs them: bad settings, exit codes, the order to stop.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::sync::RwLock;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Instant;

use rstlab_tests::{
    InTime as _, LIMIT, Reply, assert_contains, binary, connect, exchange, field, post_head, proxy,
    read_reply, rstlab, text, upstream,
};
use rustix::process::{Pid, Signal, kill_process};

fn run(program: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = Command::new(binary(program))
        .args(arguments)
        .env_clear()
        .output_in_time();
    (status.code(), text(&stderr).to_owned())
}

#[test]
fn bad_settings_are_named_all_at_once_with_exit_code_2() {
    let cases: [(&str, &[&str], &[&str]); 2] = [
        (
            "rstlab-proxy",
            &["--writes=both", "--gap=1", "--upstream=nowhere"],
            &[
                "PROXY_WRITES=\"both\"",
                "PROXY_GAP=\"1\"",
                "PROXY_UPSTREAM=\"nowhere\"",
            ],
        ),
        (
            "rstlab-upstream",
            &["--mode=lzy", "--status=99", "--response-bytes=many"],
            &[
                "UPSTREAM_MODE=\"lzy\"",
                "UPSTREAM_STATUS=\"99\"",
                "UPSTREAM_RESPONSE_BYTES=\"many\"",
            ],
        ),
    ];
    for (program, arguments, named) in cases {
        let (code, text) = run(program, arguments);
        assert_eq!(code, Some(2), "{text}");
        let allowed = text.matches("; allowed: ").count();
        assert_eq!(allowed, named.len(), "{text}");
        assert_contains(&text, named);
    }
}

#[test]
fn a_port_in_use_is_one_clear_line_with_exit_code_1() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (program, setting) in [
        ("rstlab-proxy", "PROXY_LISTEN"),
        ("rstlab-upstream", "UPSTREAM_LISTEN"),
    ] {
        let (code, text) = run(program, &["--listen", &address]);
        assert_eq!(code, Some(1), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
        let parts = [program, setting, &address, "Address already in use"];
        assert_contains(&text, &parts);
    }
}

/// A pipe holds 64 KiB. If nobody reads it, the log has to wait, but not the program.
#[test]
fn a_log_that_nobody_reads_does_not_stop_the_program() {
    let mut child = Command::new(binary("rstlab-upstream"))
        .args([
            "--listen=127.0.0.1:0",
            "--response-bytes=1",
            "--witness=sockets",
        ])
        .env_clear()
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut first_line = String::new();
    // The test holds the pipe to the end, because writing to a closed pipe fails and does not wait.
    let mut stderr = BufReader::with_capacity(1, child.stderr.take().expect("piped"));
    stderr.read_line(&mut first_line).expect("it logs");
    let address = field(&first_line, "address").expect(&first_line);
    let address = address.parse().expect(&first_line);

    for request in 0..1000 {
        let reply = exchange(address, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        let whole = reply.as_ref().is_ok_and(Reply::is_whole);
        assert!(whole, "request {request}: {reply:?}");
    }
    kill_process(Pid::from_child(&child), Signal::TERM).expect("it runs");
    let deadline = Instant::now() + LIMIT;
    let status = loop {
        if let Some(status) = child.try_wait().expect("it is our child") {
            break status;
        }
        assert!(Instant::now() < deadline, "it did not end");
        thread::yield_now();
    };
    assert_eq!(status.code(), Some(0));
}

/// Clients at work when the order to stop comes.
const CLIENTS: usize = 16;

#[test]
fn an_order_to_stop_under_load_loses_no_response() {
    for mode in ["drain", "linger"] {
        stop_under_load(mode);
    }
}

fn stop_under_load(mode: &str) {
    let upstream = upstream(&[("UPSTREAM_MODE", mode), ("UPSTREAM_THINK", "20ms")]);
    let proxy = proxy(upstream.address, &[]);
    let address = proxy.address;

    // A client holds the lock for reading while it looks and connects, so nobody is between the two when the value
    // turns true.
    let stopping = RwLock::new(false);
    let one_request = |body: &[u8]| -> Option<io::Result<Reply>> {
        let stopping = stopping.read().expect("no client panicked");
        if *stopping {
            return None;
        }
        let connected = connect(address);
        drop(stopping);
        Some(connected.and_then(|mut stream| {
            // Head and body are two writes: some clients are between the two when the order comes.
            stream.write_all(post_head("/", body.len() as u64).as_bytes())?;
            stream.write_all(body)?;
            Ok(read_reply(&mut stream))
        }))
    };
    let (sender, replies) = channel();
    let client = |sender: Sender<_>| {
        while let Some(reply) = one_request(&[b'x'; 22]) {
            sender.send(reply).expect("the receiver outlives us");
        }
    };

    let (before, after, ended) = thread::scope(|scope| {
        for _ in 0..CLIENTS {
            let sender = sender.clone();
            scope.spawn(|| client(sender));
        }
        drop(sender);
        // After so many answers every client has begun.
        let mut before: Vec<_> = replies.iter().take(CLIENTS).collect();
        let mut stop = stopping.write().expect("no client panicked");
        before.extend(replies.try_iter());
        proxy.terminate();
        *stop = true;
        drop(stop);
        let after: Vec<_> = replies.iter().collect();
        (before, after, proxy.wait())
    });

    assert!(!after.is_empty(), "nothing ran when the order came");
    for reply in before.iter().chain(&after) {
        let whole = reply.as_ref().is_ok_and(Reply::is_whole);
        assert!(whole, "{mode}: {reply:?}");
    }
    let requests = (before.len() + after.len()) as u64;
    assert_eq!(ended.status.code(), Some(0));
    assert_eq!(ended.summary("requests"), requests);
    assert_eq!(ended.summary("no_response"), 0);
    assert_eq!(ended.summary("truncated"), 0);
    let error = connect(address).expect_err("nobody listens any more");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    assert_eq!(upstream.stop().status.code(), Some(0));
}

/// The process that answers is rstlab-upstream, which is in the directory of rstlab.
#[test]
fn a_trace_shows_a_killed_process() {
    let args = ["trace", "--mode=kill", "--gap=20ms", "--witness=sockets"];
    let Output { status, stdout, .. } = rstlab(&args).env_clear().output_in_time();
    assert!(status.success(), "{}", text(&stdout));
    // Half of the response is sent, and a RST may destroy some of that.
    assert_contains(text(&stdout), &["cause     killed.", "bytes: cut"]);
}

/// As with `rstlab load ... | head`.
#[test]
fn a_closed_standard_output_is_no_error() {
    let upstream = upstream(&[("UPSTREAM_MODE", "drain")]);
    let url = format!("http://{}/", upstream.address);
    for arguments in [
        vec!["demo", "--requests=1", "--gap=50ms"],
        vec!["demo", "--requests=1", "--gap=50ms", "--json"],
        vec!["load", &url, "--requests=1"],
        vec!["check", &url, "--trials=1", "--scenario=keep-alive"],
        vec!["trace", "--witness=sockets"],
    ] {
        let mut child = rstlab(&arguments)
            .env_clear()
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        drop(child.stdout.take());
        let Output { status, stderr, .. } = child.output_in_time();
        assert_eq!(text(&stderr), "", "{arguments:?}");
        // Exit code 1 is a demonstration that was not as explained: on a busy machine one request may be enough for that.
        assert!(
            matches!(status.code(), Some(0 | 1)),
            "{arguments:?}: {status}"
        );
    }
    upstream.stop();
}

/// A client that waits for an answer, so that the program waits too.
fn asked(address: SocketAddr) -> TcpStream {
    let mut client = connect(address).expect("it listens");
    let request =
        "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 22\r\n\r\n";
    client.write_all(request.as_bytes()).expect("it reads");
    // The program reads the body.
    let mut go_on = [0; 25];
    client.read_exact(&mut go_on).expect("100 Continue");
    client
}

#[test]
fn a_second_signal_ends_a_program_at_once_and_the_abandoned_requests_are_counted() {
    let slow = || upstream(&[("UPSTREAM_MODE", "drain"), ("UPSTREAM_THINK", "1h")]);
    let behind = slow();
    for mut program in [proxy(behind.address, &[]), slow()] {
        let _clients = [(); 3].map(|()| asked(program.address));
        program.terminate();
        program.wait_for("SIGTERM: finishing");
        program.signal(Signal::INT);
        let ended = program.wait();
        assert_eq!(ended.status.code(), Some(1), "{:?}", ended.log);
        let counts = ["requests", "abandoned"].map(|name| ended.summary(name));
        assert_eq!(counts, [3, 3], "{:?}", ended.log);
    }
}

/// The order came once: the program has ended as it was told to.
#[test]
fn requests_that_outlast_the_order_to_stop_by_ten_seconds_are_abandoned() {
    let slow = || upstream(&[("UPSTREAM_MODE", "drain"), ("UPSTREAM_THINK", "1h")]);
    let behind = slow();
    let programs = [proxy(behind.address, &[]), slow()];
    let _clients = programs.each_ref().map(|program| asked(program.address));
    programs.iter().for_each(|program| program.terminate());
    for program in programs {
        let ended = program.wait();
        assert_eq!(ended.status.code(), Some(0), "{:?}", ended.log);
        let counts = ["requests", "abandoned"].map(|name| ended.summary(name));
        assert_eq!(counts, [1, 1], "{:?}", ended.log);
    }
}
