//! After the order to stop, running requests are finished, and clients that have connected are answered.

use crate::support::{Proxy, config};
use rstlab_proxy::{ProxyConfig as Config, Writes};
use rstlab_tests::{Peer, PeerEnd, read_exactly, read_head, read_to_end, soon};
use rstlab_witness::Summary;
use tokio::io::AsyncWriteExt;
use tokio::sync::{mpsc, oneshot};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn stopping_finishes_a_request_in_progress() {
    let (asked, is_asked) = oneshot::channel();
    let (go_on, may_go_on) = oneshot::channel();
    let mut once = Some((asked, may_go_on));
    let upstream = Peer::start(move |mut stream, _| {
        let (asked, may_go_on) = once.take().unwrap();
        async move {
            read_head(&mut stream).await;
            asked.send(()).unwrap();
            may_go_on.await.unwrap();
            stream.write_all(OK).await.unwrap();
        }
    })
    .await;
    let proxy = Proxy::in_front_of(&upstream).await;
    let mut client = proxy.connect().await;
    client.write_all(GET).await.unwrap();
    is_asked.await.unwrap();
    proxy.begin_stop();
    // Once the listener is gone the order has arrived.
    while tokio::net::TcpStream::connect(proxy.address).await.is_ok() {}
    go_on.send(()).unwrap();
    let answer = read_to_end(&mut client).await;
    assert_eq!(answer.body(), b"ok");
    assert!(answer.text().to_lowercase().contains("connection: close"));
    drop(client);
    assert_eq!(proxy.stop().await.requests, 1);
}

#[tokio::test]
async fn stopping_answers_a_connection_that_was_made() {
    let upstream = Peer::answering(OK, PeerEnd::Close).await;
    let proxy = Proxy::in_front_of(&upstream).await;
    let mut client = proxy.connect().await;
    proxy.begin_stop();
    client.write_all(GET).await.unwrap();
    assert_eq!(read_to_end(&mut client).await.body(), b"ok");
}

#[tokio::test]
async fn stopping_closes_an_idle_connection() {
    let upstream = Peer::answering(OK, PeerEnd::Close).await;
    let proxy = Proxy::in_front_of(&upstream).await;
    let mut client = proxy.connect().await;
    client.write_all(GET).await.unwrap();
    read_head(&mut client).await;
    assert_eq!(read_exactly(&mut client, 2).await, b"ok");
    proxy.begin_stop();
    assert!(read_to_end(&mut client).await.bytes.is_empty());
    drop(client);
    proxy.stop().await;
}

/// The request waits for its body, for a response, or for the rest of one.
#[tokio::test]
async fn a_request_that_is_abandoned_is_counted_as_such() {
    const CUT: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nok";
    const HALF: &[u8] =
        b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\nbo";
    for (request, writes, response) in [
        (HALF, Writes::Joined, &b""[..]),
        (HALF, Writes::Split, b""),
        (GET, Writes::Split, b""),
        (GET, Writes::Split, CUT),
    ] {
        let (asked, mut is_asked) = mpsc::unbounded_channel();
        let upstream = Peer::start(move |mut stream, _| {
            let asked = asked.clone();
            async move {
                read_head(&mut stream).await;
                stream.write_all(response).await.unwrap();
                asked.send(()).unwrap();
                read_to_end(&mut stream).await;
            }
        })
        .await;
        let proxy = Proxy::start(Config {
            writes,
            ..config(&upstream)
        })
        .await;
        let mut client = proxy.connect().await;
        client.write_all(request).await.unwrap();
        if writes == Writes::Joined {
            // The proxy reads the body.
            assert!(read_head(&mut client).await.contains("100 Continue"));
        } else {
            soon(is_asked.recv()).await.unwrap();
        }
        if !response.is_empty() {
            read_head(&mut client).await;
            assert_eq!(read_exactly(&mut client, 2).await, b"ok");
        }
        proxy.begin_stop();
        // Once the listener is gone the order has arrived.
        while tokio::net::TcpStream::connect(proxy.address).await.is_ok() {}
        proxy.abandon();
        let expected = Summary {
            requests: 1,
            abandoned: 1,
            ..Summary::default()
        };
        assert_eq!(proxy.stop().await, expected, "{writes} {response:?}");
    }
}
