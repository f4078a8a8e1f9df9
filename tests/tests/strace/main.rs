//! Checks with strace by which system calls the proxy writes a request.

#![cfg(feature = "peers")]
// Helpers of tests, outside of #[test].
#![allow(clippy::unwrap_used)]

mod own;
mod trace;

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::{fs, mem, str};

use rstlab_tests::{LIMIT, Reply, Server, connect, content_length, proxy_command, read_reply};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use tempfile::TempDir;
use trace::{WriteCall, calls};

/// A request: its head as the client sends it, its body as the client sends it, its body as the proxy forwards it.
const REQUESTS: [(&str, &str, &str); 3] = [
    (
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\n",
        "hello world",
        "hello world",
    ),
    (
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
        "5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
        "B\r\nhello world\r\n0\r\n\r\n",
    ),
    (
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n",
        "5\r\nhello\r\n6\r\n world\r\n0\r\nx-sum: 1\r\n\r\n",
        "B\r\nhello world\r\n0\r\nx-sum: 1\r\n\r\n",
    ),
];

const HEAD_END: &[u8] = b"\r\n\r\n";

/// How the client's bytes reach the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arrival {
    OnePiece,
    ByteByByte,
    /// Head and body in two segments.
    TwoPieces,
    /// The body is sent when the upstream has got the head.
    BodyAfterHeadWasForwarded,
}

/// A proxy under strace, and its upstream, which this test plays itself.
struct TracedProxy {
    proxy: Server,
    listener: TcpListener,
    directory: TempDir,
}

impl TracedProxy {
    fn start(settings: &[(&str, &str)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        set_socket_timeout(&listener, Timeout::Recv, Some(LIMIT)).unwrap();
        let directory = TempDir::new().unwrap();
        let output = directory.path().join("strace");
        // -D leaves the proxy our own child; -yy names both ends of a socket; -xx prints every byte as \x61.
        let calls = "trace=write,writev,sendto,sendmsg,pwritev2,splice,sendfile";
        let strace = ["strace", "-D", "-f", "-yy", "-xx", "-s", "1000000", "-e"];
        let output = ["-o", output.to_str().unwrap()];
        let command = proxy_command(
            &[&strace[..], &[calls], &output].concat(),
            listener.local_addr().unwrap(),
            settings,
        );
        Self {
            proxy: Server::start(command),
            listener,
            directory,
        }
    }

    /// Sends one request through the proxy and answers it; returns the proxy's end of the upstream connection.
    fn exchange(&self, head: &str, body: &[u8], arrival: Arrival) -> SocketAddr {
        let mut client = connect(self.proxy.address).unwrap();
        let mut upstream = None;
        match arrival {
            Arrival::OnePiece => client.write_all(&[head.as_bytes(), body].concat()).unwrap(),
            Arrival::ByteByByte => {
                for byte in head.as_bytes().iter().chain(body) {
                    client.write_all(&[*byte]).unwrap();
                }
            }
            Arrival::TwoPieces => {
                client.write_all(head.as_bytes()).unwrap();
                client.write_all(body).unwrap();
            }
            Arrival::BodyAfterHeadWasForwarded => {
                client.write_all(head.as_bytes()).unwrap();
                upstream = Some(self.accept_head());
                client.write_all(body).unwrap();
            }
        }
        let mut upstream = upstream.unwrap_or_else(|| self.accept_head());
        upstream.read_rest(head);
        upstream
            .stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
            .unwrap();
        let peer = upstream.stream.peer_addr().unwrap();
        drop(upstream);
        finish_client(client);
        peer
    }

    fn accept_head(&self) -> Upstream {
        let (stream, _) = self.listener.accept().expect("the proxy connects");
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let mut upstream = Upstream {
            stream,
            body: Vec::new(),
        };
        upstream.read_head();
        upstream
    }

    /// Ends the proxy; returns what it wrote to the upstream, by its end of the connection.
    fn finish(self) -> HashMap<SocketAddr, Vec<WriteCall>> {
        let upstream = self.listener.local_addr().unwrap();
        // strace holds the proxy's standard error too: when that is closed, the trace is complete.
        assert_eq!(self.proxy.stop().status.code(), Some(0));
        let trace = fs::read_to_string(self.directory.path().join("strace")).unwrap();
        let mut connections: HashMap<SocketAddr, Vec<WriteCall>> = HashMap::new();
        for (socket, call) in calls(&trace) {
            if let Some((ours, theirs)) = socket.split_once("->")
                && theirs == upstream.to_string()
            {
                connections
                    .entry(ours.parse().unwrap())
                    .or_default()
                    .push(call);
            }
        }
        connections
    }
}

/// The upstream's side of a connection.
struct Upstream {
    stream: TcpStream,
    /// The bytes that were read after the head.
    body: Vec<u8>,
}

impl Upstream {
    /// Reads a head, and drops all bytes up to its end.
    fn read_head(&mut self) {
        self.body.clear();
        while self.body_starts_at().is_none() {
            self.read_some();
        }
        let at = self.body_starts_at().unwrap();
        self.body.drain(..at);
    }

    fn read_some(&mut self) {
        let mut buf = [0; 65536];
        let bytes = self.stream.read(&mut buf).expect("the proxy sends");
        assert!(bytes > 0, "the proxy closed");
        self.body.extend_from_slice(&buf[..bytes]);
    }

    fn body_starts_at(&self) -> Option<usize> {
        let at = self.body.windows(4).position(|four| four == HEAD_END);
        at.map(|at| at + HEAD_END.len())
    }

    /// Reads the body of a request with this head to its end.
    fn read_rest(&mut self, head: &str) {
        let length = content_length(head);
        let is_whole = |body: &[u8]| match head.contains("chunked") {
            true => body.ends_with(HEAD_END),
            false => body.len() >= length,
        };
        while !is_whole(&self.body) {
            self.read_some();
        }
    }
}

/// Ends the sending side of the client, and reads the answer to its end.
fn finish_client(mut client: TcpStream) {
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let reply: Reply = read_reply(&mut client);
    assert!(reply.is_whole() && reply.status == Some(200), "{reply:?}");
}

#[test]
fn a_split_request_is_two_writev_for_every_framing_and_arrival() {
    let traced = TracedProxy::start(&[("PROXY_WRITES", "split")]);
    let mut expected = Vec::new();
    for (head, body, forwarded) in REQUESTS {
        for arrival in [
            Arrival::OnePiece,
            Arrival::ByteByByte,
            Arrival::TwoPieces,
            Arrival::BodyAfterHeadWasForwarded,
        ] {
            let connection = traced.exchange(head, body.as_bytes(), arrival);
            expected.push((connection, head, forwarded, arrival));
        }
    }
    let written = traced.finish();
    for (connection, head, forwarded, arrival) in expected {
        let calls = &written[&connection];
        let case = format!("{arrival:?} of {head:?}: {calls:?}");
        assert_eq!(calls.len(), 2, "{case}");
        assert!(calls.iter().all(WriteCall::is_writev), "{case}");
        assert!(calls[0].is_head(), "{case}");
        assert_eq!(str::from_utf8(&calls[1].bytes), Ok(forwarded), "{case}");
    }
}

#[test]
fn a_joined_request_is_one_writev_with_head_and_body() {
    let traced = TracedProxy::start(&[("PROXY_WRITES", "joined")]);
    let mut expected = Vec::new();
    for (head, body, forwarded) in REQUESTS {
        for arrival in [Arrival::OnePiece, Arrival::ByteByByte, Arrival::TwoPieces] {
            let connection = traced.exchange(head, body.as_bytes(), arrival);
            expected.push((connection, head, forwarded, arrival));
        }
    }
    let written = traced.finish();
    for (connection, head, forwarded, arrival) in expected {
        let calls = &written[&connection];
        let case = format!("{arrival:?} of {head:?}: {calls:?}");
        assert_eq!(calls.len(), 1, "{case}");
        assert!(calls[0].is_writev(), "{case}");
        assert!(calls[0].bytes.starts_with(b"POST / HTTP/1.1\r\n"), "{case}");
        let end = [HEAD_END, forwarded.as_bytes()].concat();
        assert!(calls[0].bytes.ends_with(&end), "{case}");
    }
}

#[test]
fn a_large_body_follows_its_head_in_writes_of_its_own() {
    let body: Vec<u8> = (0..200_000_u32).map(|at| at as u8).collect();
    let head = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n";
    for arrival in [Arrival::OnePiece, Arrival::BodyAfterHeadWasForwarded] {
        let traced = TracedProxy::start(&[("PROXY_WRITES", "split")]);
        let connection = traced.exchange(head, &body, arrival);
        let mut calls = traced.finish().remove(&connection).unwrap();
        assert!(calls.iter().all(WriteCall::is_writev), "{arrival:?}");
        assert!(calls[0].is_head(), "{arrival:?}: {:?}", calls[0]);
        let sent: Vec<u8> = calls[1..]
            .iter_mut()
            .flat_map(|call| mem::take(&mut call.bytes))
            .collect();
        assert!(sent == body, "{arrival:?}: {} bytes", sent.len());
    }
}

#[test]
fn a_request_without_a_body_is_one_writev() {
    for writes in ["split", "joined"] {
        let traced = TracedProxy::start(&[("PROXY_WRITES", writes)]);
        let connection =
            traced.exchange("GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"", Arrival::OnePiece);
        let calls = &traced.finish()[&connection];
        assert_eq!(calls.len(), 1, "{writes}: {calls:?}");
        assert!(
            calls[0].is_writev() && calls[0].is_head(),
            "{writes}: {calls:?}"
        );
    }
}

#[test]
fn each_request_on_a_kept_connection_is_split() {
    // A kept connection stays with its worker.
    let settings = [
        ("PROXY_UPSTREAM_KEEPALIVE", "on"),
        ("PROXY_WORKERS", "1"),
        ("LOG", "debug"),
    ];
    let mut traced = TracedProxy::start(&settings);
    let mut upstream: Option<Upstream> = None;
    let get = ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", "", "");
    let requests = [REQUESTS[0], get, REQUESTS[1], REQUESTS[2]];
    for (head, body, _) in requests {
        let mut client = connect(traced.proxy.address).unwrap();
        client
            .write_all(format!("{head}{body}").as_bytes())
            .unwrap();
        let upstream = match &mut upstream {
            None => upstream.insert(traced.accept_head()),
            Some(upstream) => {
                upstream.read_head();
                upstream
            }
        };
        upstream.read_rest(head);
        let response = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        upstream.stream.write_all(response).unwrap();
        finish_client(client);
        traced.proxy.wait_for("upstream connection kept");
    }
    let connection = upstream.unwrap().stream.peer_addr().unwrap();
    let calls = traced.finish().remove(&connection).unwrap();
    let mut calls = calls.iter();
    for (head, _, forwarded) in requests {
        let call = calls.next().expect("a head");
        assert!(call.is_writev() && call.is_head(), "{head:?}: {call:?}");
        if !forwarded.is_empty() {
            let call = calls.next().expect("a body");
            assert!(call.is_writev(), "{head:?}: {call:?}");
            assert_eq!(str::from_utf8(&call.bytes), Ok(forwarded), "{head:?}");
        }
    }
    assert_eq!(calls.count(), 0);
}
