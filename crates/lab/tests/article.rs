//! The article's two programs, as real processes.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpSocket;

const RSTLAB: &str = env!("CARGO_BIN_EXE_rstlab");

/// `rstlab server`, without a pause: the tests order things by what they see.
struct Server {
    process: Child,
    out: BufReader<ChildStdout>,
    port: u16,
}

impl Server {
    fn start() -> Self {
        let mut process = Command::new(RSTLAB)
            .args(["server", "--port=0", "--sleep=0s"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let address = line.trim_end().strip_prefix("listening on 127.0.0.1:");
        let port = address.expect(&line).parse().unwrap();
        Self { process, out, port }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        line
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Ours, and not waited for yet: it can't be anybody else's process.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn client(port: u16, args: &[&str]) -> Command {
    let mut client = Command::new(RSTLAB);
    client
        .args(["client", &format!("--port={port}")])
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    client
}

fn stdout(output: &Output) -> &str {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    std::str::from_utf8(&output.stdout).unwrap()
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
    let limit = Instant::now() + Duration::from_secs(60);
    while !table().lines().skip(1).any(is_it) {
        assert!(Instant::now() < limit, "the bytes do not come");
        std::thread::yield_now();
    }
}

#[test]
fn without_spam_the_end_is_clean() {
    let mut server = Server::start();
    let output = client(server.port, &[]).output().unwrap();
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
fn with_spam_it_is_a_reset() {
    let mut server = Server::start();
    // The server stands still until the bytes it will not read have arrived.
    server.signal(Signal::STOP);
    let spam = client(server.port, &["--spam"]).spawn().unwrap();
    until_unread(server.port, 100);
    server.signal(Signal::CONT);

    let output = spam.wait_with_output().unwrap();
    let text = stdout(&output);
    let (read, end) = text.split_once(" bytes, ").expect(text);
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
    let server = Command::new(RSTLAB)
        .args(["server", &format!("--port={port}")])
        .output()
        .unwrap();
    assert_eq!(server.status.code(), Some(1));
    let text = format!(
        "rstlab: cannot listen on 127.0.0.1:{port}; --port sets another port: Address already in use (os error 98)\n"
    );
    assert_eq!(String::from_utf8_lossy(&server.stderr), text);

    // Bound, so that nobody else gets the port, and not listening.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = socket.local_addr().unwrap().port();
    let client = client(port, &[]).output().unwrap();
    assert_eq!(client.status.code(), Some(1));
    let text =
        format!("rstlab: cannot connect to 127.0.0.1:{port}: Connection refused (os error 111)\n");
    assert_eq!(String::from_utf8_lossy(&client.stderr), text);
}

#[test]
fn traced_or_not_it_says_the_same_on_standard_output() {
    let server = Server::start();
    let plain = client(server.port, &[]).output().unwrap();
    assert_eq!(plain.stderr, b"");
    let traced = client(server.port, &["--trace"]).output().unwrap();
    assert_eq!(stdout(&traced), stdout(&plain));
    let trace = String::from_utf8(traced.stderr).unwrap();
    let calls: Vec<&str> = trace
        .lines()
        .filter_map(|line| line.split([' ', '(']).nth(1))
        .collect();
    let begin = ["socket", "setsockopt", "connect", "setsockopt"];
    assert_eq!(calls[..4], begin, "{trace}");
    assert_eq!(calls.last(), Some(&"close"), "{trace}");
}
