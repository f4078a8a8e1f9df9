//! Requests that are not HTTP/1.1 are refused, and nothing hangs.

use std::time::Duration;

use crate::support::{Proxy, config};
use rstlab_proxy::ProxyConfig as Config;
use rstlab_tests::{Peer, PeerEnd, read_to_end};
use tokio::io::AsyncWriteExt;

async fn ok_proxy() -> (Peer, Proxy) {
    let upstream = Peer::answering(
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        PeerEnd::Close,
    )
    .await;
    let proxy = Proxy::in_front_of(&upstream).await;
    (upstream, proxy)
}

/// The head may be on its way to the upstream before the body shows what it is.
#[tokio::test]
async fn malformed_chunks_are_refused() {
    let upstream = Peer::silent().await;
    let proxy = Proxy::in_front_of(&upstream).await;
    for chunk in [
        "+4\r\nbody\r\n0\r\n\r\n",
        "-4\r\nbody\r\n0\r\n\r\n",
        "body\r\n",
        "4\r\nbodies\r\n0\r\n\r\n",
        "10000000000000000\r\n",
    ] {
        let head = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
        let answer = proxy.exchange(format!("{head}{chunk}")).await;
        assert_eq!(answer.status(), 400, "{chunk:?}: {}", answer.text());
    }
    let summary = proxy.stop().await;
    assert_eq!((summary.requests, summary.refused), (5, 5));
}

#[tokio::test]
async fn an_ambiguous_request_is_found_behind_good_ones() {
    let (_upstream, proxy) = ok_proxy().await;
    let good = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    let bad = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 40\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let answer = proxy
        .exchange(format!("{good}{good}{bad}{good}"))
        .await
        .text();
    let statuses: Vec<&str> = answer
        .split("HTTP/1.1 ")
        .skip(1)
        .map(|response| &response[..3])
        .collect();
    assert_eq!(statuses, ["200", "200", "400"]);
    let summary = proxy.stop().await;
    assert_eq!((summary.whole, summary.refused), (2, 1));
}

#[tokio::test]
async fn clients_that_stop_in_the_middle_get_a_408() {
    let upstream = Peer::silent().await;
    let proxy = Proxy::start(Config {
        client_head_timeout: Duration::from_millis(50),
        client_body_timeout: Duration::from_millis(50),
        ..config(&upstream)
    })
    .await;
    for part in [
        "",
        "GET / HTT",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nf\r\nhalf",
    ] {
        let answer = proxy.exchange(part).await;
        assert_eq!(answer.status(), 408, "{part:?}");
        assert!(answer.text().to_lowercase().contains("connection: close"));
    }
    let summary = proxy.stop().await;
    assert_eq!((summary.requests, summary.refused), (4, 4));
}

#[tokio::test]
async fn an_idle_connection_is_closed_without_a_408() {
    let (upstream, _) = ok_proxy().await;
    let proxy = Proxy::start(Config {
        client_head_timeout: Duration::from_millis(50),
        ..config(&upstream)
    })
    .await;
    let answer = proxy.exchange("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(answer.text().ends_with("ok"), "{}", answer.text());
}

#[tokio::test]
async fn clients_that_leave_in_the_middle_do_no_harm() {
    let (_upstream, proxy) = ok_proxy().await;
    for part in [
        "",
        "GET / HT",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf",
    ] {
        let mut client = proxy.connect().await;
        client.write_all(part.as_bytes()).await.unwrap();
        drop(client);
    }
    let mut client = proxy.connect().await;
    client
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(read_to_end(&mut client).await.status(), 200);
}
