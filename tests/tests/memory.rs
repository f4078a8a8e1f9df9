//! The memory of the programs does not grow with the size of a body, and a client cannot make the proxy hold much of it.
//! Takes a minute or more: `cargo test -p rstlab-tests --features long --test memory`.

#![cfg(feature = "long")]

use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use rstlab_tests::{LIMIT, Server, connect, post_head, proxy, read_reply, upstream};
use rstlab_wire::accept;

/// The longest time for the whole body on a slow machine.
const UPLOAD_LIMIT: Duration = Duration::from_secs(600);

const BODY_BYTES: u64 = 4_000_000_000;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

static ZEROES: [u8; 256 * 1024] = [0; 256 * 1024];

/// Sends [`BODY_BYTES`] zeroes, as one body or in chunks.
fn send_zeroes(mut stream: &TcpStream, chunked: bool) -> std::io::Result<()> {
    let mut left = BODY_BYTES;
    while left > 0 {
        let piece = left.min(ZEROES.len() as u64);
        if chunked {
            write!(stream, "{piece:x}\r\n")?;
        }
        stream.write_all(&ZEROES[..piece as usize])?;
        if chunked {
            stream.write_all(b"\r\n")?;
        }
        left -= piece;
    }
    if chunked {
        stream.write_all(b"0\r\n\r\n")?;
    }
    Ok(())
}

#[test]
fn a_body_of_any_size_passes_within_the_bounds_of_memory() {
    let chunked_head =
        "POST / HTTP/1.1\r\nHost: test\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (head, chunked) in [
        (post_head("/", BODY_BYTES), false),
        (chunked_head.to_owned(), true),
    ] {
        let mut upstream = upstream(&[("UPSTREAM_MODE", "drain")]);
        let proxy = proxy(upstream.address, &[("PROXY_MAX_BODY", "0")]);

        let start = Instant::now();
        let mut stream = connect(proxy.address).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        let reply = thread::scope(|scope| {
            let sender = stream.try_clone().unwrap();
            scope.spawn(move || send_zeroes(&sender, chunked).expect("the proxy takes them"));
            // The answer comes after the last byte.
            stream.set_read_timeout(Some(UPLOAD_LIMIT)).unwrap();
            read_reply(&mut stream)
        });
        assert!(reply.is_whole() && reply.status == Some(200), "{reply:?}");
        let read = upstream.wait_for(" closed ");
        if !chunked {
            assert!(read.contains(&format!("body_bytes={BODY_BYTES}")), "{read}");
        }

        let (proxy_peak, upstream_peak) = (proxy.peak_memory_bytes(), upstream.peak_memory_bytes());
        eprintln!(
            "{BODY_BYTES} bytes, chunked={chunked}, in {:.1?}: the proxy held {:.1} MiB at most, the upstream {:.1} MiB",
            start.elapsed(),
            proxy_peak as f64 / MIB as f64,
            upstream_peak as f64 / MIB as f64,
        );
        assert!(upstream_peak < 32 * MIB);
        assert!(proxy_peak < 24 * MIB);
    }
}

/// Clients that hold a connection.
struct Holding {
    what: &'static str,
    clients: usize,
    /// Sent first.
    head: &'static str,
    /// Bytes that are sent after the head, as far as the proxy takes them.
    body_bytes: usize,
    settings: &'static [(&'static str, &'static str)],
    /// The upstream answers with more than the kernel's buffers hold; else it never reads.
    upstream_answers: bool,
    /// Most memory of the proxy for each client; the kernel's buffers are not counted.
    limit_bytes: u64,
}

const HOLDING: [Holding; 6] = [
    Holding {
        what: "a client that sends nothing",
        clients: 400,
        head: "",
        body_bytes: 0,
        settings: &[],
        upstream_answers: false,
        limit_bytes: 3 * KIB,
    },
    Holding {
        what: "a head that is not whole",
        clients: 400,
        head: "GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ",
        body_bytes: 0,
        settings: &[],
        upstream_answers: false,
        limit_bytes: 5 * KIB,
    },
    Holding {
        what: "a body that is not whole",
        clients: 400,
        head: "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n",
        body_bytes: 60_000,
        settings: &[],
        upstream_answers: false,
        limit_bytes: 160 * KIB,
    },
    Holding {
        what: "an upload that the upstream does not read",
        clients: 300,
        head: "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1048576\r\n\r\n",
        body_bytes: 1_048_575,
        settings: &[],
        upstream_answers: false,
        limit_bytes: 160 * KIB,
    },
    Holding {
        what: "an upload without a cap that the upstream does not read",
        clients: 300,
        head: "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n",
        body_bytes: 99_999_999,
        settings: &[("PROXY_MAX_BODY", "0")],
        upstream_answers: false,
        limit_bytes: 160 * KIB,
    },
    Holding {
        what: "a response that the client does not read",
        clients: 300,
        head: "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        body_bytes: 0,
        settings: &[],
        upstream_answers: true,
        limit_bytes: 160 * KIB,
    },
];

/// A server that accepts connections and does nothing with them, until the process ends.
fn mute_upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        let mut kept = Vec::new();
        for stream in listener.incoming() {
            kept.push(stream);
        }
    });
    address
}

/// Clients before the measurement: by then each worker has its code, its stack and the first pages of its heap in memory.
const CLIENTS_BEFORE: usize = 100;

impl Holding {
    /// The proxy's memory for each client.
    fn measure(&self, proxy: &Server) -> u64 {
        let mut clients = Vec::new();
        let before = self.hold(proxy, &mut clients, CLIENTS_BEFORE);
        let after = self.hold(proxy, &mut clients, self.clients);
        (after - before) / self.clients as u64
    }

    /// Adds `more` clients, until neither they nor the proxy's memory move. Returns the proxy's memory.
    fn hold(&self, proxy: &Server, clients: &mut Vec<(TcpStream, usize)>, more: usize) -> u64 {
        clients.extend((0..more).map(|_| {
            let mut stream = connect(proxy.address).expect("it listens");
            stream
                .write_all(self.head.as_bytes())
                .expect("it takes a head");
            stream.set_nonblocking(true).expect("a socket");
            (stream, self.body_bytes)
        }));
        let deadline = Instant::now() + LIMIT;
        let (mut memory, mut still) = (0, 0);
        while still < 20 {
            assert!(Instant::now() < deadline, "{}: it goes on", self.what);
            thread::sleep(Duration::from_millis(50));
            let mut moves = false;
            for (stream, left) in &mut *clients {
                while *left > 0 {
                    match stream.write(&ZEROES[..ZEROES.len().min(*left)]) {
                        Ok(sent) => *left -= sent,
                        Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                        Err(error) => panic!("{}: {error}", self.what),
                    }
                    moves = true;
                }
            }
            let now = proxy.resident_memory_bytes();
            still = if moves || now > memory { 0 } else { still + 1 };
            memory = memory.max(now);
        }
        memory
    }
}

#[test]
fn a_client_costs_the_proxy_little_memory_however_it_behaves() {
    accept::capacity(1, 0);
    let mute = mute_upstream();
    let flood = upstream(&[
        ("UPSTREAM_MODE", "drain"),
        ("UPSTREAM_RESPONSE_BYTES", "100000000"),
    ]);
    let mut too_much = Vec::new();
    for holding in &HOLDING {
        let upstream = if holding.upstream_answers {
            flood.address
        } else {
            mute
        };
        let proxy = proxy(upstream, holding.settings);
        let bytes = holding.measure(&proxy);
        let line = format!(
            "{}: {:.1} KiB, limit {} KiB",
            holding.what,
            bytes as f64 / KIB as f64,
            holding.limit_bytes / KIB
        );
        eprintln!("{line}");
        if bytes > holding.limit_bytes {
            too_much.push(line);
        }
    }
    assert!(too_much.is_empty(), "{too_much:#?}");
}
