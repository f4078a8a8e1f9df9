//! `rstlab server` and `rstlab client`, the two programs of the article, as real processes.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{ChildStdout, Command, Output, Stdio};
use std::time::Instant;

use rstlab_tests::{ChildProgram, InTime as _, LIMIT, rstlab, text};
use rustix::process::Signal;
use tokio::net::TcpSocket;

/// `rstlab server` without a pause: the tests wait for events, not for a time.
struct ArticleServer {
    program: ChildProgram,
    out: BufReader<ChildStdout>,
    port: u16,
}

impl ArticleServer {
    fn start() -> Self {
        let mut command = rstlab(&["server", "--port=0", "--sleep=0s"]);
        let mut program = ChildProgram::spawn(command.stdout(Stdio::piped()));
        let mut out = BufReader::new(program.take_stdout().unwrap());
        let line = next_line(&mut out);
        let address = line.trim_end().strip_prefix("listening on 127.0.0.1:");
        let port = address.expect(&line).parse().unwrap();
        Self { program, out, port }
    }

    fn line(&mut self) -> String {
        next_line(&mut self.out)
    }
}

fn next_line(out: &mut impl BufRead) -> String {
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    line
}

fn client(port: u16, args: &[&str]) -> Command {
    let mut client = rstlab(&["client", &format!("--port={port}")]);
    client
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    client
}

fn stdout(output: &Output) -> &str {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    text(&output.stdout)
}

/// Waits until a connection to `port` has so many bytes unread (`/proc/net/tcp`: local address, state, queues).
fn until_unread(port: u16, bytes: usize) {
    let address = format!(":{port:04X}");
    let unread = format!(":{bytes:08X}");
    let is_it = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields[1].ends_with(&address) && fields[3] == "01" && fields[4].ends_with(&unread)
    };
    let table = || std::fs::read_to_string("/proc/net/tcp").unwrap();
    let limit = Instant::now() + LIMIT;
    while !table().lines().skip(1).any(is_it) {
        assert!(Instant::now() < limit, "the bytes do not come");
        std::thread::yield_now();
    }
}

#[test]
fn without_spam_the_article_s_client_sees_a_clean_end() {
    let mut server = ArticleServer::start();
    let output = client(server.port, &[]).output_in_time();
    assert_eq!(
        stdout(&output),
        "Read 600000 bytes, final return value was 0, errno was 0\n"
    );
    let line = server.line();
    assert!(
        line.ends_with(": sent 600000 bytes, closed with nothing unread\n"),
        "{line}"
    );
}

#[test]
fn with_spam_the_article_s_client_sees_a_reset() {
    let mut server = ArticleServer::start();
    // The server is stopped until the bytes that it will not read have arrived.
    server.program.signal(Signal::STOP);
    let spam = client(server.port, &["--spam"]).spawn().unwrap();
    until_unread(server.port, 100);
    server.program.signal(Signal::CONT);

    let output = spam.output_in_time();
    let printed = stdout(&output);
    let (read, end) = printed.split_once(" bytes, ").expect(printed);
    let read: u64 = read.strip_prefix("Read ").unwrap().parse().unwrap();
    assert!(read <= 600_000);
    assert_eq!(
        end,
        "final return value was -1, errno was 104\nConnection reset by peer\n"
    );
    let line = server.line();
    assert!(
        line.ends_with(": sent 600000 bytes, closed with 100 bytes unread: a reset\n"),
        "{line}"
    );
}

#[test]
fn nobody_to_connect_to_and_a_port_in_use_are_one_clear_line() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = rstlab(&["server", &format!("--port={port}")]).output_in_time();
    assert_eq!(server.status.code(), Some(1));
    let expected = format!(
        "rstlab: cannot listen on 127.0.0.1:{port}; --port sets another port: Address already in use (os error 98)\n"
    );
    assert_eq!(text(&server.stderr), expected);

    // The socket is bound, so that nobody else gets the port, and does not listen.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = socket.local_addr().unwrap().port();
    let client = client(port, &[]).output_in_time();
    assert_eq!(client.status.code(), Some(1));
    let expected =
        format!("rstlab: cannot connect to 127.0.0.1:{port}: Connection refused (os error 111)\n");
    assert_eq!(text(&client.stderr), expected);
}

#[test]
fn tracing_does_not_change_the_standard_output_of_the_client() {
    let server = ArticleServer::start();
    let plain = client(server.port, &[]).output_in_time();
    assert_eq!(plain.stderr, b"");
    let traced = client(server.port, &["--trace"]).output_in_time();
    assert_eq!(stdout(&traced), stdout(&plain));
    let trace = text(&traced.stderr);
    let calls: Vec<&str> = trace
        .lines()
        .filter_map(|line| line.split([' ', '(']).nth(1))
        .collect();
    let begin = ["socket", "setsockopt", "connect", "setsockopt"];
    assert_eq!(calls[..4], begin, "{trace}");
    assert_eq!(calls.last(), Some(&"close"), "{trace}");
}
