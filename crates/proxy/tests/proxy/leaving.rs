//! Clients that leave before they have their responses.

use std::time::Duration;

use rstlab_proxy::{ProxyConfig as Config, Writes};
use rstlab_tests::{Peer, read_exactly, read_head, read_to_end, soon};
use rstlab_wire::close;
use rstlab_witness::Summary;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::log::Log;
use crate::support::{Proxy, config};

const PART: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\npart";

const GET: &str = "GET /a HTTP/1.1\r\nHost: x\r\n\r\n";

/// An upstream that reads heads and never answers, and the connections whose head it has read.
async fn thinking() -> (Peer, mpsc::UnboundedReceiver<TcpStream>) {
    let (sender, thinking) = mpsc::unbounded_channel();
    let peer = Peer::start(move |mut stream, _| {
        let sender = sender.clone();
        async move {
            read_head(&mut stream).await;
            // The test may be over.
            let _ = sender.send(stream);
        }
    });
    (peer.await, thinking)
}

/// Time limits longer than the test's.
fn patient(upstream: &Peer) -> Config {
    const HOUR: Duration = Duration::from_secs(3600);
    Config {
        read_timeout: HOUR,
        client_body_timeout: HOUR,
        ..config(upstream)
    }
}

fn left(requests: u64) -> Summary {
    Summary {
        requests,
        left: requests,
        ..Summary::default()
    }
}

#[tokio::test]
async fn the_rst_of_a_client_ends_its_exchange_while_the_upstream_thinks() {
    let mut log = Log::start();
    let (upstream, mut thinking) = thinking().await;
    let proxy = Proxy::start(patient(&upstream)).await;
    let pipelined = format!("{GET}GET /b HTTP/1.1\r\nHo");
    for (sent, half_close) in [(GET, false), (&pipelined, false), (GET, true)] {
        let mut client = proxy.connect().await;
        client.write_all(sent.as_bytes()).await.unwrap();
        if half_close {
            client.shutdown().await.unwrap();
        }
        let mut stream = soon(thinking.recv()).await.unwrap();
        close::abort(client);
        let mut rest = Vec::new();
        soon(stream.read_to_end(&mut rest)).await.unwrap();
        assert_eq!(rest, b"", "the upstream connection ends");
        let line = log.wait_for("the client left").await;
        for part in ["method=GET path=\"/a\"", "phase=waiting", "harm=left"] {
            assert!(line.contains(part), "{part} is missing in {line}");
        }
    }
    assert_eq!(proxy.stop().await, left(3));
}

/// Nobody waits for an answer: the half of the client that is left is told nothing either.
#[tokio::test]
async fn a_client_that_leaves_in_mid_body_is_no_400() {
    let mut log = Log::start();
    let upstream = Peer::silent().await;
    for writes in [Writes::Split, Writes::Joined] {
        let proxy = Proxy::start(Config {
            writes,
            ..patient(&upstream)
        })
        .await;
        for (framing, reset) in [
            ("Content-Length: 10\r\n\r\nhalf", false),
            ("Content-Length: 10\r\n\r\nhalf", true),
            ("Transfer-Encoding: chunked\r\n\r\nf\r\nhalf", false),
            ("Transfer-Encoding: chunked\r\n\r\nf\r\nhalf", true),
        ] {
            let mut client = proxy.connect().await;
            let request = format!("POST / HTTP/1.1\r\nHost: x\r\n{framing}");
            client.write_all(request.as_bytes()).await.unwrap();
            if reset {
                close::abort(client);
            } else {
                client.shutdown().await.unwrap();
                let answer = read_to_end(&mut client).await;
                assert_eq!(answer.text(), "", "{framing:?}");
            }
            let line = log.wait_for("harm=").await;
            assert!(line.contains("the client left"), "{line}");
        }
        assert_eq!(proxy.stop().await, left(4));
    }
}

/// Its response ends early in both cases, but only one of the two clients has left.
#[tokio::test]
async fn a_client_whose_body_is_malformed_has_not_left_its_response() {
    let upstream = Peer::start(|mut stream, _| async move {
        read_head(&mut stream).await;
        stream.write_all(PART).await.unwrap();
        // The proxy ends the connection.
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let expected = Summary {
        requests: 2,
        truncated: 1,
        lost_bytes: 996,
        left: 1,
        ..Summary::default()
    };
    let proxy = Proxy::start(patient(&upstream)).await;
    for leaves in [false, true] {
        let mut client = proxy.connect().await;
        let post = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n";
        client.write_all(post.as_bytes()).await.unwrap();
        read_head(&mut client).await;
        read_exactly(&mut client, 4).await;
        match leaves {
            true => client.shutdown().await.unwrap(),
            false => client.write_all(b"no size\r\n").await.unwrap(),
        }
        assert_eq!(read_to_end(&mut client).await.text(), "", "{leaves}");
    }
    assert_eq!(proxy.stop().await, expected);
}
