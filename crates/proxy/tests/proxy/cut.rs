//! A cut response reaches the client as cut, and is counted as truncated.

use crate::support::{Proxy, config};
use std::time::Duration;

use http::header::CONTENT_LENGTH;
use rstlab_proxy::{ProxyConfig as Config, Writes};
use rstlab_tests::{Peer, PeerEnd, read_exactly, read_head, read_to_end, until_unread};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

const POST: &str = "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody";
const SIZED: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\npart";
const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n";
const UNTIL_CLOSE: &[u8] = b"HTTP/1.0 200 OK\r\n\r\npart";

#[tokio::test]
async fn a_response_cut_by_a_reset_is_handed_on_as_far_as_it_came() {
    let upstream = Peer::lazy(4, SIZED).await;
    let proxy = Proxy::in_front_of(&upstream).await;
    let answer = proxy.exchange(POST).await;
    assert!(
        answer
            .text()
            .to_lowercase()
            .contains(&format!("{CONTENT_LENGTH}: 1000"))
    );
    assert_eq!(
        answer.body(),
        b"part",
        "what came is handed on, nothing is added"
    );
    let summary = proxy.stop().await;
    assert_eq!(
        (summary.requests, summary.resets, summary.harmless),
        (1, 1, 0)
    );
    assert_eq!((summary.truncated, summary.lost_bytes), (1, 996));
}

#[tokio::test]
async fn a_response_cut_by_a_fin_counts_as_truncated_and_not_as_reset() {
    let upstream = Peer::answering(SIZED, PeerEnd::Close).await;
    let proxy = Proxy::in_front_of(&upstream).await;
    assert_eq!(proxy.exchange(POST).await.body(), b"part");
    let summary = proxy.stop().await;
    assert_eq!(
        (summary.resets, summary.truncated, summary.lost_bytes),
        (0, 1, 996)
    );
}

#[tokio::test]
async fn a_cut_chunked_response_reaches_the_client_without_the_last_chunk() {
    for (upstream, resets) in [
        (Peer::lazy(4, CHUNKED).await, 1),
        (Peer::answering(CHUNKED, PeerEnd::Close).await, 0),
        // Without the reset, the end of this response would look clean.
        (Peer::lazy(4, UNTIL_CLOSE).await, 1),
    ] {
        let proxy = Proxy::in_front_of(&upstream).await;
        let answer = proxy.exchange(POST).await;
        assert_eq!(answer.body(), b"4\r\npart\r\n", "no last chunk");
        let summary = proxy.stop().await;
        assert_eq!((summary.truncated, summary.resets), (1, resets));
    }
}

/// An HTTP/1.0 client takes the end of the connection for the end of the response: it must be a RST.
#[tokio::test]
async fn a_client_that_reads_until_the_end_gets_a_reset_for_a_cut_response() {
    const OLD_POST: &str = "POST /a HTTP/1.0\r\nContent-Length: 4\r\n\r\nbody";
    for response in [CHUNKED, UNTIL_CLOSE] {
        let upstream = Peer::lazy(4, response).await;
        let proxy = Proxy::in_front_of(&upstream).await;
        let answer = proxy.exchange(OLD_POST).await;
        assert_eq!(answer.body(), b"part");
        assert_eq!(answer.end.unwrap_err().raw_os_error(), Some(104));
        assert_eq!(proxy.stop().await.truncated, 1);
    }
    let upstream = Peer::answering(UNTIL_CLOSE, PeerEnd::Close).await;
    let proxy = Proxy::in_front_of(&upstream).await;
    let answer = proxy.exchange(OLD_POST).await;
    assert_eq!(answer.body(), b"part");
    answer.end.expect("a whole response ends with a FIN");
}

/// The client does not read, so that the proxy does not read from the upstream either: its write meets the
/// RST first and uses up the socket's error. The reads that follow find the queued bytes and a clean end.
#[tokio::test]
async fn a_cut_is_seen_though_a_write_used_up_the_socket_s_error() {
    let (closed, is_closed) = tokio::sync::oneshot::channel();
    let mut closed = Some(closed);
    let upstream = Peer::start(move |mut stream, _| {
        let closed = closed.take().unwrap();
        async move {
            read_head(&mut stream).await;
            until_unread(&stream, 1).await;
            stream.write_all(b"HTTP/1.0 200 OK\r\n\r\n").await.unwrap();
            fill(&mut stream).await;
            drop(stream);
            closed.send(()).unwrap();
        }
    })
    .await;
    let proxy = Proxy::start(Config {
        max_body: None,
        ..config(&upstream)
    })
    .await;
    let mut client = proxy.connect().await;
    client
        .write_all(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 30100000\r\n\r\n")
        .await
        .unwrap();
    client.write_all(&[b'a'; 100_000]).await.unwrap();
    is_closed.await.unwrap();
    // More than all the sockets between hold: once it is out, the proxy has tried to send some of it.
    client.write_all(&vec![b'a'; 30_000_000]).await.unwrap();
    let answer = read_to_end(&mut client).await;
    assert!(!answer.bytes.ends_with(b"\r\n0\r\n\r\n"), "no last chunk");
    drop(client);
    let summary = proxy.stop().await;
    assert_eq!((summary.resets, summary.truncated), (1, 1));
}

/// Sends until no byte has been taken for a while. The tests do not depend on the exact moment.
async fn fill(stream: &mut TcpStream) {
    let piece = vec![b'x'; 1 << 20];
    while let Ok(sent) = timeout(Duration::from_millis(200), stream.write_all(&piece)).await {
        sent.unwrap();
    }
}

#[tokio::test]
async fn a_cut_before_the_head_is_a_502() {
    let reset = Peer::start(|mut stream, _| async move {
        read_head(&mut stream).await;
        until_unread(&stream, 4).await;
    })
    .await;
    let closed = Peer::answering(b"", PeerEnd::Close).await;
    let partial = Peer::answering(b"HTTP/1.1 200 OK\r\nContent-", PeerEnd::Close).await;
    let garbage = Peer::answering(b"SSH-2.0-OpenSSH_9.2\r\n", PeerEnd::Close).await;
    for (upstream, resets) in [(reset, 1), (closed, 0), (partial, 0), (garbage, 0)] {
        let proxy = Proxy::in_front_of(&upstream).await;
        assert_eq!(proxy.exchange(POST).await.status(), 502);
        let summary = proxy.stop().await;
        assert_eq!((summary.resets, summary.no_response), (resets, 1));
    }
}

#[tokio::test]
async fn a_reset_after_the_response_s_end_does_no_harm() {
    const WHOLE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npart";
    let upstream = Peer::lazy(4, WHOLE).await;
    let proxy = Proxy::in_front_of(&upstream).await;
    let mut client = proxy.connect().await;
    client.write_all(POST.as_bytes()).await.unwrap();
    let head = read_head(&mut client).await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert_eq!(read_exactly(&mut client, 4).await, b"part");
    drop(client);
    let summary = proxy.stop().await;
    assert_eq!(
        (summary.resets, summary.harmless, summary.truncated),
        (1, 1, 0)
    );
}

/// A RST that comes behind the FIN shows in no read; the socket's pending error tells.
#[tokio::test]
async fn a_reset_behind_the_fin_is_seen() {
    const WHOLE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npart";
    let upstream = Peer::start(|mut stream, _| async move {
        read_head(&mut stream).await;
        stream.write_all(WHOLE).await.unwrap();
        // Closed before the body comes: FIN now, RST when it comes.
    })
    .await;
    let config = Config {
        writes: Writes::Split,
        gap: Duration::from_millis(50),
        ..config(&upstream)
    };
    let proxy = Proxy::start(config).await;
    let mut client = proxy.connect().await;
    client.write_all(POST.as_bytes()).await.unwrap();
    read_head(&mut client).await;
    assert_eq!(read_exactly(&mut client, 4).await, b"part");
    drop(client);
    let summary = proxy.stop().await;
    assert_eq!((summary.resets, summary.harmless), (1, 1));
}

/// A client that reads slowly has bytes waiting in the proxy when the upstream resets: they still go out.
#[tokio::test]
async fn a_reset_loses_nothing_that_had_reached_the_proxy() {
    const LENGTH: u64 = 1_000_000_000;
    let (reset, is_reset) = tokio::sync::oneshot::channel();
    let mut reset = Some(reset);
    let upstream = Peer::start(move |mut stream, _| {
        let reset = reset.take().unwrap();
        async move {
            read_head(&mut stream).await;
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            fill(&mut stream).await;
            rstlab_wire::close::abort(stream);
            reset.send(()).unwrap();
        }
    })
    .await;
    let proxy = Proxy::in_front_of(&upstream).await;
    let mut client = proxy.connect().await;
    client
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    is_reset.await.unwrap();
    let answer = read_to_end(&mut client).await;
    let received = answer.body().len() as u64;
    drop(client);
    let summary = proxy.stop().await;
    assert_eq!(summary.truncated, 1);
    assert_eq!(summary.lost_bytes, LENGTH - received);
}
