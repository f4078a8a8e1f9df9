//! Every client gets an answer that was given before its upload was read: the upstream's 401, and the proxy's own 413.
//! `cargo test -p rstlab-tests --features long --test early_answers`.

#![cfg(feature = "long")]

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rstlab_tests::{
    Peer, Server, connect, content_length, head_field, proxy, try_read_head, until_unread,
};
use rstlab_wire::{HeadEnd, queues};
use tokio::io::AsyncWriteExt as _;

/// Uploads of each kind, and how many of them at once.
const UPLOADS: usize = 1000;
const AT_ONCE: usize = 32;

/// The sizes of the uploads, in bytes.
const SIZES: [usize; 4] = [22, 100_000, 1_000_000, 5_000_000];

/// The time for which the proxy reads on after an answer.
const READS_ON: Duration = Duration::from_secs(5);

/// The upstream's answer to an upload.
const EARLY: &[u8] =
    b"HTTP/1.1 401 Unauthorized\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno";

/// The upstream's answer to a request without a body; the connection is kept.
const KEPT: &[u8] = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno";

/// How a client connects, and whether it looks for an answer while it sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Uploader {
    /// One connection for each upload. It sends all of its body before it reads.
    Simple,
    /// The connection has carried a GET before. The client stops sending as soon as an answer is there.
    KeepAlive,
}

/// An upstream that answers an upload after its head and closes over the unread body, which makes the kernel send a RST.
async fn early_upstream() -> Peer {
    Peer::start(|mut stream, _| async move {
        while let Some(head) = try_read_head(&mut stream).await {
            if content_length(&head) > 0 {
                until_unread(&stream, 1).await;
                stream.write_all(EARLY).await.expect("sends");
                return;
            }
            stream.write_all(KEPT).await.expect("sends");
        }
    })
    .await
}

/// Reads one whole response with a Content-Length; returns its head.
fn read_response(stream: &mut TcpStream) -> io::Result<String> {
    let (mut head, mut end, mut byte) = (Vec::new(), HeadEnd::default(), [0]);
    loop {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
        if end.feed(&byte).is_some() {
            break;
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut body = vec![0; content_length(&head)];
    stream.read_exact(&mut body)?;
    Ok(head)
}

/// Uploads `bytes` bytes and returns the status of the answer, which has come whole.
fn upload(address: SocketAddr, bytes: usize, as_: Uploader) -> io::Result<String> {
    const PIECE: &[u8] = &[b'a'; 64 * 1024];
    let (mut stream, start) = (connect(address)?, Instant::now());
    let connection = match as_ {
        Uploader::Simple => "close",
        Uploader::KeepAlive => {
            stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")?;
            read_response(&mut stream)?;
            "keep-alive"
        }
    };
    let head = format!(
        "POST / HTTP/1.1\r\nHost: x\r\nConnection: {connection}\r\nContent-Length: {bytes}\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    let mut left = bytes;
    while left > 0 && (as_ == Uploader::Simple || queues::unread(&stream)? == 0) {
        let piece = &PIECE[..left.min(PIECE.len())];
        match stream.write_all(piece) {
            Ok(()) => left -= piece.len(),
            // A stalled machine: the proxy has read on for as long as it does. Linux keeps what was received.
            Err(_) if start.elapsed() >= READS_ON => break,
            Err(error) => return Err(error),
        }
    }
    let head = read_response(&mut stream)?;
    let closes = head_field(&head, "connection") == Some("close");
    assert!(
        closes || left == 0,
        "the body's rest would be the next request: {head}"
    );
    if closes && start.elapsed() < READS_ON {
        let behind = stream.read(&mut [0])?;
        assert_eq!(behind, 0, "a FIN ends the connection");
    }
    Ok(head.split(' ').nth(1).unwrap_or_default().to_owned())
}

/// Uploads of each size, of both kinds of clients; each of them gets an answer with this `status`.
async fn all_get(proxy: &Server, status: &'static str) {
    for as_ in [Uploader::Simple, Uploader::KeepAlive] {
        for bytes in SIZES {
            let (address, start) = (proxy.address, Instant::now());
            let begun = Arc::new(AtomicUsize::new(0));
            let clients = (0..AT_ONCE).map(|_| {
                let begun = Arc::clone(&begun);
                tokio::task::spawn_blocking(move || {
                    while begun.fetch_add(1, Ordering::Relaxed) < UPLOADS {
                        match upload(address, bytes, as_) {
                            Ok(got) => assert_eq!(got, status, "{as_:?}, {bytes} bytes"),
                            Err(error) => panic!("{as_:?}, {bytes} bytes: {error}"),
                        }
                    }
                })
            });
            for client in clients.collect::<Vec<_>>() {
                client.await.expect("each client gets the answer");
            }
            eprintln!(
                "{UPLOADS} × {bytes} bytes, {as_:?}: {:.1?}",
                start.elapsed()
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_client_gets_the_upstreams_early_401() {
    let upstream = early_upstream().await;
    let settings = [("PROXY_MAX_BODY", "0"), ("PROXY_UPSTREAM_KEEPALIVE", "on")];
    let proxy = proxy(upstream.address, &settings);
    all_get(&proxy, "401").await;
    let end = proxy.stop();
    let lost = ["truncated", "no_response"].map(|name| end.summary(name));
    assert_eq!(lost, [0, 0]);
    let with_get = 3;
    assert_eq!(
        end.summary("requests"),
        (with_get * SIZES.len() * UPLOADS) as u64
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_client_gets_the_proxys_413() {
    let upstream = early_upstream().await;
    let proxy = proxy(upstream.address, &[("PROXY_MAX_BODY", "21")]);
    all_get(&proxy, "413").await;
    let end = proxy.stop();
    let lost = ["truncated", "no_response"].map(|name| end.summary(name));
    assert_eq!(lost, [0, 0]);
    let uploads = 2 * SIZES.len() * UPLOADS;
    assert_eq!(end.summary("refused"), uploads as u64);
}
