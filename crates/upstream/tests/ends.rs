//! Modes that end a connection in the middle of a response, or between two requests.

#![allow(clippy::unwrap_used)]

mod common;

use common::{BODY, LARGE, Pair, mode, post};
use rstlab_tests::{Answer, read_exactly, read_head};
use rstlab_upstream::{Mode, UpstreamConfig as Config};
use rstlab_wire::close::Peer;
use rstlab_witness::AnswerKind;
use tokio::io::AsyncWriteExt;

const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";

/// A request with a body that came whole.
fn whole_post() -> Vec<u8> {
    [post(22).as_bytes(), BODY].concat()
}

/// The client got half of the announced body, and a FIN.
fn assert_half(read: &Answer, announced: u64) {
    assert!(read.end.is_ok(), "a FIN: {:?}", read.end);
    assert_eq!(read.field("content-length"), announced.to_string());
    assert_eq!(read.body().len() as u64, announced / 2);
}

#[tokio::test]
async fn truncate_ends_in_the_middle_with_a_fin() {
    for bytes in [1, 1000, 614_400, LARGE] {
        let mut pair = Pair::new(Config {
            response_bytes: bytes,
            ..mode(Mode::Truncate)
        })
        .await;
        pair.send(whole_post()).await;
        assert_half(&pair.read().await, bytes);
        // No RST comes behind the FIN.
        assert!(pair.client.take_error().unwrap().is_none());
        let summary = pair.summary().await;
        assert_eq!(summary.answer.unwrap().kind, AnswerKind::Response);
        assert_eq!((summary.body_bytes, summary.closed.unread_bytes), (22, 0));
    }
}

#[tokio::test]
async fn truncate_waits_for_the_whole_body() {
    let mut pair = Pair::new(mode(Mode::Truncate)).await;
    pair.send(post(LARGE)).await;
    pair.send(vec![b'b'; LARGE as usize]).await;
    assert_half(&pair.read().await, 614_400);
    let summary = pair.summary().await;
    assert_eq!(summary.body_bytes, LARGE);
    assert_eq!(summary.closed.unread_bytes, 0);
}

#[tokio::test]
async fn a_response_without_a_body_is_not_truncated() {
    for (request, bytes) in [(GET, 0), ("HEAD / HTTP/1.1\r\nHost: test\r\n\r\n", 1000)] {
        let mut pair = Pair::new(Config {
            response_bytes: bytes,
            ..mode(Mode::Truncate)
        })
        .await;
        pair.send(request).await;
        let read = pair.read().await;
        assert!(read.end.is_ok());
        assert_eq!(read.field("content-length"), bytes.to_string());
        assert!(read.body().is_empty());
    }
}

/// Reads one response off a connection that is kept.
async fn read_response(pair: &mut Pair, bytes: usize) -> Answer {
    let head = read_head(&mut pair.client).await;
    let body = read_exactly(&mut pair.client, bytes).await;
    Answer {
        bytes: [head.into_bytes(), body].concat(),
        end: Ok(()),
    }
}

#[tokio::test]
async fn idle_close_resets_the_next_request() {
    for bytes in [0, 1000, 614_400] {
        let mut pair = Pair::new(Config {
            response_bytes: bytes,
            ..mode(Mode::IdleClose)
        })
        .await;
        pair.send(whole_post()).await;
        let read = read_response(&mut pair, bytes as usize).await;
        read.assert_whole(bytes);
        assert!(!read.head().to_lowercase().contains("\r\nconnection:"));

        pair.send(GET).await;
        let next = pair.read().await;
        assert_eq!((next.errno(), next.bytes.len()), (Some(104), 0));
        let summary = pair.summary().await;
        assert_eq!(summary.body_bytes, 22);
        assert_eq!(summary.closed.unread_bytes, GET.len() as u64);
    }
}

#[tokio::test]
async fn idle_close_ends_with_a_fin_after_a_client_that_leaves() {
    let mut pair = Pair::new(mode(Mode::IdleClose)).await;
    pair.send(GET).await;
    read_response(&mut pair, 614_400)
        .await
        .assert_whole(614_400);
    pair.client.shutdown().await.unwrap();
    assert_eq!(pair.read().await.bytes.len(), 0);
    let closed = pair.summary().await.closed;
    assert_eq!((closed.unread_bytes, closed.peer), (0, Peer::Closed));
}

#[tokio::test]
async fn idle_close_closes_for_a_client_that_keeps_no_connection() {
    for request in [
        "GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
    ] {
        let mut pair = Pair::new(mode(Mode::IdleClose)).await;
        pair.send(request).await;
        let read = pair.read().await;
        read.assert_whole(614_400);
        assert_eq!(read.field("connection"), "close");
        assert_eq!(pair.summary().await.closed.unread_bytes, 0);
    }
}

/// The next request was read together with the first, so that nothing is unread and the end is a FIN.
#[tokio::test]
async fn idle_close_does_not_wait_for_a_request_that_has_come() {
    let mut pair = Pair::new(mode(Mode::IdleClose)).await;
    pair.send(GET.repeat(2)).await;
    let summary = pair.closed_by_server().await;
    assert_eq!(summary.closed.unread_bytes, 0);
    pair.read().await.assert_whole(614_400);
}

#[tokio::test]
async fn idle_close_refuses_malformed_heads_as_other_modes_do() {
    let mut pair = Pair::new(mode(Mode::IdleClose)).await;
    pair.send("GET / HTTP/1.1\r\nno colon\r\n\r\n").await;
    let read = pair.read().await;
    assert_eq!((read.status(), read.end.is_ok()), (400, true));
    assert_eq!(read.field("connection"), "close");
}
