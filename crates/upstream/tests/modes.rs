//! Each mode does on a real connection what its row in the table of modes says.
//!
//! The client's view gives the order: once the first byte of a response larger than every buffer is there, the head has
//! been read and the server waits in its write.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::{Duration, Instant};

use common::{BODY, LARGE, Pair, mode, post};
use rstlab_tests::Answer;
use rstlab_upstream::{ConnectionEnd, Mode, UpstreamConfig as Config};
use rstlab_wire::close::Peer;
use rstlab_witness::AnswerKind;
use tokio::io::{AsyncWriteExt, Interest};

const ECONNRESET: Option<i32> = Some(104);

/// The body is sent while the server writes; then the client reads on.
async fn body_after_head(config: Config) -> (Answer, ConnectionEnd, Duration) {
    let mut pair = Pair::new(Config {
        response_bytes: LARGE,
        ..config
    })
    .await;
    pair.send(post(22)).await;
    pair.answer_begins().await;
    pair.send(BODY).await;
    let start = Instant::now();
    let read = pair.read().await;
    (read, pair.summary().await, start.elapsed())
}

/// Head, then the body: the server waits for it before it answers.
async fn body_is_awaited(config: Config, bytes: u64) -> (Answer, ConnectionEnd) {
    let mut pair = Pair::new(config).await;
    pair.send(post(bytes)).await;
    pair.send(vec![b'b'; bytes as usize]).await;
    let read = pair.read().await;
    (read, pair.summary().await)
}

fn lingering(time: Duration, bytes: u64) -> Config {
    Config {
        linger_timeout: time,
        linger_bytes: bytes,
        ..mode(Mode::Linger)
    }
}

#[tokio::test]
async fn lazy_resets_because_the_body_lies_unread() {
    let (read, summary, _) = body_after_head(mode(Mode::Lazy)).await;
    assert_eq!(read.errno(), ECONNRESET);
    assert_eq!(read.status(), 200);
    assert_eq!(summary.answer.unwrap().kind, AnswerKind::Response);
    assert_eq!(summary.head_bytes, post(22).len() as u64);
    assert_eq!((summary.body_bytes, summary.closed.unread_bytes), (0, 22));
}

#[tokio::test]
async fn lazy_resets_because_the_body_comes_after_the_close() {
    let mut pair = Pair::new(Config {
        response_bytes: 1000,
        ..mode(Mode::Lazy)
    })
    .await;
    pair.send(post(22)).await;
    let summary = pair.closed_by_server().await;
    assert_eq!(summary.closed.unread_bytes, 0);
    pair.send(BODY).await;
    // The FIN was there first, so that reading ends well; the reset shows to whoever goes on writing.
    pair.client.ready(Interest::ERROR).await.unwrap();
    pair.read().await.assert_whole(1000);
    let error = pair.client.write_all(BODY).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn lazy_does_not_reset_when_the_body_came_with_the_head() {
    let mut pair = Pair::new(mode(Mode::Lazy)).await;
    pair.send([post(22).as_bytes(), BODY].concat()).await;
    pair.read().await.assert_whole(614_400);
    let summary = pair.summary().await;
    assert_eq!((summary.body_bytes, summary.closed.unread_bytes), (22, 0));
}

/// One recv of 8,192 bytes takes exactly the head; the body came with it and stays in the kernel, although
/// hyper tries to read once more when the app has not touched it.
#[tokio::test]
async fn lazy_reads_8192_bytes_and_never_again() {
    let mut pair = Pair::new(mode(Mode::Lazy)).await;
    let head = post(22).replace(
        "Host: ",
        &format!("Host: {}", "h".repeat(8192 - post(22).len())),
    );
    pair.send([head.as_bytes(), BODY].concat()).await;
    assert_eq!(pair.read().await.errno(), ECONNRESET);
    let summary = pair.summary().await;
    assert_eq!((summary.head_bytes, summary.body_bytes), (8192, 0));
    assert_eq!(summary.closed.unread_bytes, 22);
}

#[tokio::test]
async fn drain_reads_everything_and_closes_cleanly() {
    let (read, summary) = body_is_awaited(mode(Mode::Drain), 22).await;
    read.assert_whole(614_400);
    assert_eq!(read.field("connection"), "close");
    assert_eq!((summary.body_bytes, summary.closed.unread_bytes), (22, 0));
}

#[tokio::test]
async fn drain_reads_more_than_the_buffers_hold() {
    let (read, summary) = body_is_awaited(mode(Mode::Drain), LARGE).await;
    read.assert_whole(614_400);
    assert_eq!(summary.body_bytes, LARGE);
    assert_eq!(summary.closed.unread_bytes, 0);
}

#[tokio::test]
async fn cap_reads_a_body_that_fits() {
    let (read, summary) = body_is_awaited(mode(Mode::Cap), 1024 * 1024).await;
    read.assert_whole(614_400);
    assert_eq!(summary.body_bytes, 1024 * 1024);
    assert_eq!(summary.answer.unwrap().kind, AnswerKind::Response);
}

#[tokio::test]
async fn delay_delays_the_reset_and_does_not_prevent_it() {
    let delay = Duration::from_millis(50);
    let (read, summary, took) = body_after_head(Config {
        close_delay: delay,
        ..mode(Mode::Delay)
    })
    .await;
    assert_eq!(read.errno(), ECONNRESET);
    assert_eq!((summary.body_bytes, summary.closed.unread_bytes), (0, 22));
    assert!(took >= delay);
}

#[tokio::test]
async fn linger_takes_the_body_after_its_half_close() {
    let config = lingering(Duration::from_secs(40), 65_536);
    let (read, summary, _) = body_after_head(config).await;
    read.assert_whole(LARGE);
    let closed = summary.closed;
    assert_eq!((summary.body_bytes, closed.lingered_bytes), (0, 22));
    assert_eq!((closed.unread_bytes, closed.peer), (0, Peer::Closed));
}

#[tokio::test]
async fn linger_beyond_its_bytes_resets_all_the_same() {
    let config = lingering(Duration::from_secs(40), 20);
    let (read, summary, _) = body_after_head(config).await;
    assert_eq!(read.status(), 200);
    let closed = summary.closed;
    assert_eq!((closed.lingered_bytes, closed.unread_bytes), (20, 2));
    assert_eq!(closed.peer, Peer::ByteBound);
}

#[tokio::test]
async fn linger_ends_at_its_time() {
    let mut pair = Pair::new(lingering(Duration::from_millis(20), 65_536)).await;
    pair.send(post(22)).await;
    pair.read().await.assert_whole(614_400);
    // The client stays, and sends nothing.
    let summary = pair.closed_by_server().await;
    assert_eq!(summary.closed.peer, Peer::TimeBound);
}

#[tokio::test]
async fn abort_resets_with_nothing_unread() {
    let mut pair = Pair::new(Config {
        response_bytes: LARGE,
        ..mode(Mode::Abort)
    })
    .await;
    pair.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    let read = pair.read().await;
    assert_eq!(read.errno(), ECONNRESET);
    assert_eq!(pair.summary().await.closed.unread_bytes, 0);
}
