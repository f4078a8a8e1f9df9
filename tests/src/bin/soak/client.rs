//! The clients of the soak, one thread each, and their counts.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::AddAssign;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rstlab_tests::{connect, head_field};
use rstlab_wire::HeadEnd;
use rustix::net::sockopt::set_socket_linger;

/// What a client does, again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClientKind {
    /// POST, head and body in two writes, each on a connection of its own.
    Post,
    /// GET after GET on a connection that is kept.
    KeptGet,
    /// POST of 0.5 to 1.5 MB: over the proxy's cap it is answered with 413.
    Upload,
    /// POST with a chunked body.
    Chunked,
    /// POST byte by byte; the response is read slowly.
    Slow,
    /// A head of more than 16 KiB, answered with 431.
    LargeHead,
    /// Leaves with a FIN or a RST: in the head, in the body, before the response, or in it.
    Aborting,
}

/// The fates of a client's requests.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ClientCounts {
    /// Requests whose head was sent.
    pub(crate) requests: u64,
    /// Whole responses of the upstream.
    pub(crate) whole: u64,
    /// Responses that were cut.
    pub(crate) truncated: u64,
    /// Bytes that cut responses are missing.
    pub(crate) lost_bytes: u64,
    /// Answers 502 and 504.
    pub(crate) no_response: u64,
    /// Answers 4xx, which are the proxy's own.
    pub(crate) refused: u64,
    /// Requests that the client itself gave up.
    pub(crate) left: u64,
    /// Requests without any answer.
    pub(crate) unanswered: u64,
}

impl AddAssign for ClientCounts {
    fn add_assign(&mut self, other: Self) {
        self.requests += other.requests;
        self.whole += other.whole;
        self.truncated += other.truncated;
        self.lost_bytes += other.lost_bytes;
        self.no_response += other.no_response;
        self.refused += other.refused;
        self.left += other.left;
        self.unanswered += other.unanswered;
    }
}

/// The longest wait for an answer: the proxy itself gives up after a minute, and a busy machine is slow.
const READ_LIMIT: Duration = Duration::from_secs(180);

/// One client.
#[derive(Debug)]
pub(crate) struct SoakClient {
    pub(crate) kind: ClientKind,
    pub(crate) address: SocketAddr,
    /// Different for each client.
    pub(crate) seed: u64,
}

/// The pauses between a client's requests are up to this long.
const MAX_PAUSE_MS: u64 = 200;

impl SoakClient {
    /// Sends requests until `stop`.
    ///
    /// # Panics
    /// The proxy does not accept, or an answer takes longer than [`READ_LIMIT`].
    pub(crate) fn run(mut self, stop: &AtomicBool) -> ClientCounts {
        let mut counts = ClientCounts::default();
        while !stop.load(Ordering::Relaxed) {
            let pause = self.random(MAX_PAUSE_MS);
            thread::sleep(Duration::from_millis(pause));
            let mut stream = connect(self.address).expect("the proxy accepts");
            stream.set_read_timeout(Some(READ_LIMIT)).expect("not zero");
            match self.kind {
                ClientKind::Aborting => self.abort(stream, &mut counts),
                ClientKind::KeptGet => {
                    for _ in 0..1 + self.random(20) {
                        let sent = stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
                        sent.expect("the proxy keeps the connection");
                        if !counts.read(&mut stream, None) {
                            break;
                        }
                    }
                }
                ClientKind::Slow => {
                    self.send(&mut stream);
                    counts.read(&mut stream, Some(Duration::from_millis(2)));
                }
                _ => {
                    self.send(&mut stream);
                    counts.read(&mut stream, None);
                }
            }
        }
        counts
    }

    /// A number below `below`.
    fn random(&mut self, below: u64) -> u64 {
        // Numbers of Knuth's MMIX generator; the high bits are the better ones.
        let next = self.seed.wrapping_mul(6_364_136_223_846_793_005);
        self.seed = next.wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 33) % below
    }

    /// Sends a request; errors don't count, because an answer may have come all the same.
    fn send(&mut self, stream: &mut TcpStream) {
        let head = |fields: &str| {
            format!("POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{fields}\r\n")
        };
        let small = head("Content-Length: 22\r\n");
        let _ = match self.kind {
            ClientKind::Upload => {
                let bytes = 500_000 + self.random(1_000_000) as usize;
                let head = head(&format!("Content-Length: {bytes}\r\n"));
                send_all(stream, &[head.as_bytes(), &vec![b'x'; bytes]])
            }
            ClientKind::Chunked => {
                let head = head("Transfer-Encoding: chunked\r\n");
                let chunk = [b"2710\r\n", &[b'x'; 10_000][..], b"\r\n"].concat();
                send_all(
                    stream,
                    &[head.as_bytes(), &chunk, &chunk, b"0\r\nX-Sum: 1\r\n\r\n"],
                )
            }
            ClientKind::LargeHead => {
                let head = head(&format!("X: {}\r\n", "x".repeat(20_000)));
                send_all(stream, &[head.as_bytes()])
            }
            ClientKind::Slow => {
                let text = small + &"x".repeat(22);
                text.as_bytes().chunks(1).try_for_each(|byte| {
                    thread::sleep(Duration::from_millis(2));
                    stream.write_all(byte)
                })
            }
            _ => send_all(stream, &[small.as_bytes(), &[b'x'; 22]]),
        };
    }

    /// Begins a request, and leaves.
    fn abort(&mut self, mut stream: TcpStream, counts: &mut ClientCounts) {
        counts.requests += 1;
        counts.left += 1;
        let head = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n";
        let text = head.to_owned() + &"x".repeat(500);
        let cut = match self.random(4) {
            0 => self.random(head.len() as u64) as usize,
            1 => head.len() + self.random(500) as usize,
            _ => text.len(),
        };
        // The proxy may have closed already.
        let _ = stream.write_all(&text.as_bytes()[..cut]);
        if self.random(2) == 0 {
            let mut some = vec![0; 1 + self.random(300_000) as usize];
            stream
                .set_read_timeout(Some(Duration::from_millis(50)))
                .expect("not zero");
            let _ = stream.read(&mut some);
        }
        if self.random(2) == 0 {
            // SO_LINGER 0: the close sends a RST.
            set_socket_linger(&stream, Some(Duration::ZERO)).expect("a socket");
        }
    }
}

fn send_all(stream: &mut TcpStream, parts: &[&[u8]]) -> io::Result<()> {
    parts.iter().try_for_each(|part| stream.write_all(part))
}

impl ClientCounts {
    /// Reads a response, with a `pause` before each piece of it, and counts its fate; returns whether the connection may
    /// carry another request.
    fn read(&mut self, stream: &mut TcpStream, pause: Option<Duration>) -> bool {
        self.requests += 1;
        let (mut head, mut end, mut byte) = (Vec::new(), HeadEnd::default(), [0]);
        loop {
            match stream.read(&mut byte) {
                Ok(1) => head.push(byte[0]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    panic!("no answer in time")
                }
                _ => {
                    self.unanswered += 1;
                    return false;
                }
            }
            if end.feed(&byte).is_some() {
                break;
            }
        }
        let head = String::from_utf8_lossy(&head);
        let status: u16 = head
            .get(9..12)
            .and_then(|it| it.parse().ok())
            .expect("a status");
        let length = head_field(&head, "content-length").and_then(|it| it.parse().ok());
        let length: u64 = length.expect("every response here has a length");
        let mut left = length;
        let mut piece = vec![0; if pause.is_some() { 8 } else { 64 } * 1024];
        while left > 0 {
            thread::sleep(pause.unwrap_or_default());
            let room = left.min(piece.len() as u64) as usize;
            match stream.read(&mut piece[..room]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => panic!("no end in time"),
                Ok(0) | Err(_) => break,
                Ok(bytes) => left -= bytes as u64,
            }
        }
        match status {
            _ if left > 0 => {
                self.truncated += 1;
                self.lost_bytes += left;
            }
            502 | 504 => self.no_response += 1,
            400..500 => self.refused += 1,
            _ => self.whole += 1,
        }
        left == 0 && head_field(&head, "connection") != Some("close")
    }
}
