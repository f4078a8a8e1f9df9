//! A client gets an answer that was given while it still sent.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::support::{Proxy, config};
use rstlab_proxy::{ProxyConfig as Config, Writes};
use rstlab_tests::{LIMIT, Peer, read_head, until_unread};
use rstlab_wire::OnWriteError;
use tokio::io::AsyncWriteExt;

const PIECE: &[u8] = &[b'a'; 64 * 1024];

/// A client that sends all of its body before it reads a byte, write errors or not, as the simplest ones do.
fn upload(address: SocketAddr, bytes: usize, chunked: bool) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let framing = if chunked {
        "Transfer-Encoding: chunked".to_owned()
    } else {
        format!("Content-Length: {bytes}")
    };
    write!(
        stream,
        "POST /big HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{framing}\r\n\r\n"
    )
    .unwrap();
    let mut left = bytes;
    while left > 0 {
        let piece = &PIECE[..left.min(PIECE.len())];
        if chunked {
            write!(stream, "{:x}\r\n", piece.len()).unwrap();
        }
        stream.write_all(piece).expect("the proxy reads on");
        if chunked {
            stream.write_all(b"\r\n").unwrap();
        }
        left -= piece.len();
    }
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .expect("the answer and a FIN");
    answer
}

async fn uploaded(proxy: &Proxy, bytes: usize, chunked: bool) -> String {
    let address = proxy.address;
    tokio::task::spawn_blocking(move || upload(address, bytes, chunked))
        .await
        .unwrap()
}

#[tokio::test]
async fn the_413_survives_an_upload_of_50_mb() {
    let upstream = Peer::lazy(0, b"").await;
    let proxy = Proxy::in_front_of(&upstream).await;
    for _ in 0..5 {
        let answer = uploaded(&proxy, 50_000_000, false).await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
        let lower = answer.to_lowercase();
        assert!(lower.contains("connection: close"), "{answer}");
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(
            lower.contains(&format!("content-length: {}", body.len())),
            "{answer}"
        );
    }
}

/// The length is not announced: the upstream gets as many bytes as the cap allows, and the client gets its 413.
#[tokio::test]
async fn the_413_survives_a_chunked_upload_of_50_mb() {
    let upstream = Peer::silent().await;
    let proxy = Proxy::in_front_of(&upstream).await;
    for _ in 0..5 {
        let answer = uploaded(&proxy, 50_000_000, true).await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    }
    let summary = proxy.stop().await;
    assert_eq!(
        (summary.resets, summary.no_response),
        (0, 0),
        "not the upstream's fault"
    );
}

const ANSWER: &[u8] = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno";

/// The upstream says 401 after the head and closes over the unread body.
async fn early_401() -> (Peer, Proxy) {
    let upstream = Peer::start(|mut stream, _| async move {
        read_head(&mut stream).await;
        until_unread(&stream, 1).await;
        stream.write_all(ANSWER).await.unwrap();
    })
    .await;
    let config = Config {
        max_body: None,
        ..config(&upstream)
    };
    let proxy = Proxy::start(config).await;
    (upstream, proxy)
}

#[tokio::test]
async fn an_early_401_reaches_every_client_at_every_size() {
    let (_upstream, proxy) = early_401().await;
    for bytes in [22, 100_000, 1_000_000, 5_000_000] {
        for _ in 0..25 {
            let answer = uploaded(&proxy, bytes, false).await;
            assert!(answer.starts_with("HTTP/1.1 401 "), "{bytes}: {answer}");
            assert!(answer.ends_with("\r\n\r\nno"), "{bytes}: {answer}");
        }
    }
    let summary = proxy.stop().await;
    assert_eq!((summary.no_response, summary.truncated), (0, 0));
}

/// The 401 and a RST come during the gap: the body's write is the first call to meet the RST. The answer lies
/// in the queue; only a proxy that reads on gets it.
#[tokio::test]
async fn giving_up_as_nginx_does_loses_an_early_answer() {
    for (on_write_error, status) in [(OnWriteError::ReadOn, 401), (OnWriteError::GiveUp, 502)] {
        let upstream = Peer::start(|mut stream, _| async move {
            read_head(&mut stream).await;
            stream.write_all(ANSWER).await.unwrap();
            rstlab_wire::close::abort(stream);
        })
        .await;
        let config = Config {
            // Long enough for the 401 and the RST to come.
            writes: Writes::Split,
            gap: Duration::from_millis(300),
            on_write_error,
            ..config(&upstream)
        };
        let proxy = Proxy::start(config).await;
        let answer = uploaded(&proxy, 22, false).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
        let summary = proxy.stop().await;
        assert_eq!(summary.no_response, u64::from(status == 502));
    }
}
