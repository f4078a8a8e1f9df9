//! Large responses go from socket to socket in the kernel, and reach the client as if the proxy had copied them.

use std::num::NonZeroUsize;
use std::time::Duration;

use crate::log::Log;
use crate::support::{self, Proxy};
use rstlab_proxy::ProxyConfig as Config;
use rstlab_tests::{Peer, PeerEnd, read_exactly, read_head, soon, try_read_head};
use rstlab_wire::{close, queues};
use rstlab_witness::Summary;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// The length of a body that the tests cut, and the bytes of the body that the upstream sends.
const LENGTH: usize = 300_000;
const SENT: usize = 200_000;

/// Bytes that do not repeat, so that a piece in the wrong place is seen.
fn body(length: usize) -> Vec<u8> {
    let mut state = length as u64 + 1;
    let mut next = || {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = (0..length.div_ceil(8)).flat_map(|_| next()).collect();
    bytes.truncate(length);
    bytes
}

fn get(length: usize) -> String {
    format!("GET /{length} HTTP/1.1\r\nHost: x\r\n\r\n")
}

/// A head that announces `length` bytes.
fn head(length: usize) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").into_bytes()
}

/// The length that a request asks for.
fn asked(head: &str) -> usize {
    let path = head.split(' ').nth(1).unwrap();
    path[1..].parse().unwrap()
}

/// An upstream that answers each request with as many bytes as its path says, and then writes `behind`.
async fn sized(behind: &'static [u8]) -> Peer {
    Peer::start(move |mut stream, _| async move {
        while let Some(request) = try_read_head(&mut stream).await {
            let length = asked(&request);
            let answer = [head(length), body(length), behind.to_vec()].concat();
            stream.write_all(&answer).await.unwrap();
        }
    })
    .await
}

/// An upstream that sends head and [`SENT`] bytes, and hands its connections to the test.
async fn halting() -> (Peer, mpsc::UnboundedReceiver<TcpStream>) {
    let (sender, halted) = mpsc::unbounded_channel();
    let peer = Peer::start(move |mut stream, _| {
        let sender = sender.clone();
        async move {
            read_head(&mut stream).await;
            let mut answer = head(LENGTH);
            answer.extend_from_slice(&body(LENGTH)[..SENT]);
            stream.write_all(&answer).await.unwrap();
            // The test may be over.
            let _ = sender.send(stream);
        }
    });
    (peer.await, halted)
}

fn config(upstream: &Peer) -> Config {
    Config {
        splice: true,
        ..support::config(upstream)
    }
}

async fn splicing(upstream: &Peer) -> Proxy {
    Proxy::start(config(upstream)).await
}

async fn keeping(upstream: &Peer) -> Proxy {
    Proxy::start(Config {
        upstream_keepalive: true,
        // Each worker has its own pool.
        workers: NonZeroUsize::MIN,
        ..config(upstream)
    })
    .await
}

async fn is_answered(client: &mut TcpStream, length: usize) {
    let head = read_head(client).await.to_lowercase();
    assert!(
        head.contains(&format!("content-length: {length}\r\n")),
        "{head}"
    );
    let got = read_exactly(client, length).await;
    assert!(
        got == body(length),
        "{length} bytes arrive as they were sent"
    );
}

#[tokio::test]
async fn bodies_of_all_sizes_arrive_as_they_were_sent_on_kept_connections() {
    let upstream = sized(b"").await;
    let proxy = keeping(&upstream).await;
    let mut client = proxy.connect().await;
    let sizes = [262_143, 262_144, 262_145, 2, 614_400, 1_000_003, 5_000_000];
    for length in sizes {
        // The second request lies in the client's connection while the first is answered.
        client
            .write_all(get(length).repeat(2).as_bytes())
            .await
            .unwrap();
        for _ in 0..2 {
            is_answered(&mut client, length).await;
        }
    }
    drop(client);
    let requests = 2 * sizes.len() as u64;
    let summary = proxy.stop().await;
    assert_eq!((summary.requests, summary.whole), (requests, requests));
    // A pipelined request may be there before the connection of the one before it is in the pool.
    assert!(upstream.finish().await <= 2, "connections are used again");
}

/// The upstream would answer a second request on the connection: what its head says decides.
#[tokio::test]
async fn a_response_of_http_1_0_is_spliced_too_and_its_connection_is_not_kept() {
    const LARGE: usize = 400_000;
    let upstream = Peer::start(|mut stream, _| async move {
        while try_read_head(&mut stream).await.is_some() {
            let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {LARGE}\r\n\r\n");
            let answer = [head.into_bytes(), body(LARGE)].concat();
            stream.write_all(&answer).await.unwrap();
        }
    })
    .await;
    let proxy = keeping(&upstream).await;
    let mut client = proxy.connect().await;
    for _ in 0..3 {
        client.write_all(get(LARGE).as_bytes()).await.unwrap();
        is_answered(&mut client, LARGE).await;
    }
    drop(client);
    assert_eq!(proxy.stop().await.whole, 3);
    assert_eq!(upstream.finish().await, 3);
}

#[tokio::test]
async fn bytes_behind_the_body_never_reach_a_client() {
    let upstream = sized(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstray").await;
    let proxy = keeping(&upstream).await;
    let mut client = proxy.connect().await;
    for _ in 0..3 {
        client.write_all(get(614_400).as_bytes()).await.unwrap();
        is_answered(&mut client, 614_400).await;
    }
    drop(client);
    assert_eq!(proxy.stop().await.whole, 3);
    assert_eq!(upstream.finish().await, 3, "no connection is used again");
}

#[tokio::test]
async fn a_client_that_reads_late_gets_the_whole_body() {
    let (blocked, mut is_blocked) = mpsc::unbounded_channel();
    const LARGE: usize = 64_000_000;
    let upstream = Peer::start(move |mut stream, _| {
        let blocked = blocked.clone();
        async move {
            read_head(&mut stream).await;
            let answer = [head(LARGE), body(LARGE)].concat();
            let mut sent = 0;
            // No room for a long time on all of the way; a stall of the machine makes the wait shorter, not the test wrong.
            while let Ok(Ok(bytes)) =
                tokio::time::timeout(Duration::from_millis(500), stream.write(&answer[sent..]))
                    .await
            {
                sent += bytes;
            }
            blocked.send(()).unwrap();
            stream.write_all(&answer[sent..]).await.unwrap();
        }
    })
    .await;
    let proxy = splicing(&upstream).await;
    let mut client = proxy.connect().await;
    client.write_all(get(LARGE).as_bytes()).await.unwrap();
    soon(is_blocked.recv()).await.unwrap();
    is_answered(&mut client, LARGE).await;
    drop(client);
    assert_eq!(proxy.stop().await.whole, 1);
}

#[tokio::test]
async fn a_body_that_is_reset_while_it_is_spliced_is_handed_on_as_far_as_it_came() {
    for (end, resets) in [(PeerEnd::Reset, 1), (PeerEnd::Close, 0)] {
        let mut log = Log::start();
        let (upstream, mut halted) = halting().await;
        let proxy = splicing(&upstream).await;
        let mut client = proxy.connect().await;
        client.write_all(get(LENGTH).as_bytes()).await.unwrap();
        read_head(&mut client).await;
        let got = read_exactly(&mut client, SENT).await;
        assert!(got == body(LENGTH)[..SENT]);
        end.put(soon(halted.recv()).await.unwrap());
        let rest = rstlab_tests::read_to_end(&mut client).await;
        assert_eq!(rest.bytes, b"");
        let line = match end {
            PeerEnd::Reset => {
                "splice() failed (104: Connection reset by peer) while reading upstream"
            }
            PeerEnd::Close => "the upstream closed the connection too early",
        };
        let line = log.wait_for(line).await;
        for part in ["phase=reading-body", "harm=truncated"] {
            assert!(line.contains(part), "{part} is missing in {line}");
        }
        let expected = Summary {
            requests: 1,
            truncated: 1,
            resets,
            lost_bytes: (LENGTH - SENT) as u64,
            ..Summary::default()
        };
        assert_eq!(proxy.stop().await, expected);
    }
}

/// hyper meets the end before the body is asked for.
#[tokio::test]
async fn a_large_response_that_ends_with_its_head_is_cut() {
    let upstream = Peer::answering(head(LENGTH), PeerEnd::Close).await;
    let proxy = splicing(&upstream).await;
    let answer = proxy.exchange(get(LENGTH)).await;
    assert_eq!((answer.status(), answer.body()), (200, &b""[..]));
    let summary = proxy.stop().await;
    assert_eq!((summary.truncated, summary.lost_bytes), (1, LENGTH as u64));
}

#[tokio::test]
async fn an_upstream_that_stalls_in_a_spliced_body_times_out() {
    let (upstream, _halted) = halting().await;
    let proxy = Proxy::start(Config {
        read_timeout: Duration::from_secs(5),
        ..config(&upstream)
    })
    .await;
    let mut client = proxy.connect().await;
    client.write_all(get(LENGTH).as_bytes()).await.unwrap();
    read_head(&mut client).await;
    let answer = rstlab_tests::read_to_end(&mut client).await;
    assert!(body(LENGTH).starts_with(&answer.bytes) && answer.bytes.len() <= SENT);
    let summary = proxy.stop().await;
    assert_eq!((summary.truncated, summary.resets), (1, 0));
}

#[tokio::test]
async fn a_client_that_leaves_in_mid_body_ends_the_upstream_connection() {
    let (upstream, mut halted) = halting().await;
    let proxy = splicing(&upstream).await;
    let mut client = proxy.connect().await;
    client.write_all(get(LENGTH).as_bytes()).await.unwrap();
    read_head(&mut client).await;
    read_exactly(&mut client, SENT).await;
    close::abort(client);
    let mut stream = soon(halted.recv()).await.unwrap();
    assert_eq!(rstlab_tests::read_to_end(&mut stream).await.bytes, b"");
    assert_eq!(queues::unread(&stream).unwrap(), 0);
    let expected = Summary {
        requests: 1,
        left: 1,
        ..Summary::default()
    };
    assert_eq!(proxy.stop().await, expected);
}
