//! Connections that are kept, and how a run is paced and ends.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rstlab_lab::load::{Extent, Plan, Report, Target, run, run_until};
use support::{End, Peer, read_request, soon};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

const HELLO: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

fn plan(peer: &Peer, requests: u64) -> Plan {
    Plan {
        extent: Extent::Requests(requests),
        connections: 1,
        ..Plan::new(Target::from(peer.address))
    }
}

/// Answers requests until the client closes, at most so many.
async fn answer(stream: &mut TcpStream, most: usize) {
    for _ in 0..most {
        if read_request(stream).await.is_none() {
            return;
        }
        stream.write_all(HELLO).await.unwrap();
    }
}

#[tokio::test]
async fn a_connection_is_kept_if_the_server_keeps_it() {
    let peer =
        Peer::start(|mut stream, _| async move { answer(&mut stream, usize::MAX).await }).await;
    for body_bytes in [None, Some(22), Some(200_000)] {
        let plan = Plan {
            body_bytes,
            connections: 3,
            ..plan(&peer, 30)
        };
        let report = soon(run(&plan, |_| {})).await;
        assert!(report.all_whole());
        assert_eq!(
            (report.body_bytes, report.resets, report.sent_again),
            (150, 0, 0)
        );
    }
    assert_eq!(peer.finish().await, 9);
}

#[tokio::test]
async fn its_end_between_two_requests_is_no_failure() {
    // The server says nothing of closing, and whether its FIN or our next request is first, nobody knows.
    let peer = Peer::start(|mut stream, _| async move { answer(&mut stream, 2).await }).await;
    let report = soon(run(&plan(&peer, 20), |_| {})).await;
    assert!(report.all_whole(), "{report:?}");
    assert_eq!(report.resets, report.harmless_resets);
    assert_eq!(peer.finish().await, 10);
}

#[tokio::test]
async fn a_get_on_a_kept_connection_that_ends_without_an_answer_is_sent_again() {
    let report = second_request_meets(End::Reset, None).await;
    assert!(report.all_whole(), "{report:?}");
    assert_eq!((report.requests, report.sent_again), (2, 1));
    assert_eq!((report.resets, report.harmless_resets), (1, 1));

    let report = second_request_meets(End::Close, None).await;
    assert!(report.all_whole(), "{report:?}");
    assert_eq!((report.sent_again, report.resets), (1, 0));
}

#[tokio::test]
async fn a_post_is_not() {
    let report = second_request_meets(End::Reset, Some(22)).await;
    assert_eq!((report.whole, report.no_response.by_reset), (1, 1));
    assert_eq!(
        (report.sent_again, report.resets, report.harmless_resets),
        (0, 1, 0)
    );
    let failure = &report.failures[0];
    assert_eq!(
        (failure.phase.as_str(), failure.on_kept_connection),
        ("waiting", 1)
    );

    let report = second_request_meets(End::Close, Some(22)).await;
    assert_eq!((report.whole, report.no_response.by_eof), (1, 1));
}

/// The first connection's second request is read and gets no answer.
async fn second_request_meets(end: End, body_bytes: Option<u64>) -> Report {
    let peer = Peer::start(move |mut stream, number| async move {
        answer(&mut stream, 1).await;
        if number == 0 {
            read_request(&mut stream).await.unwrap();
            end.put(stream);
        }
    })
    .await;
    let report = soon(run(
        &Plan {
            body_bytes,
            ..plan(&peer, 2)
        },
        |_| {},
    ))
    .await;
    peer.finish().await;
    report
}

#[tokio::test]
async fn progress_counts_every_request() {
    let peer = Peer::answering(HELLO, End::Close).await;
    let plan = Plan {
        connections: 5,
        ..plan(&peer, 20)
    };
    let told = AtomicU64::new(0);
    soon(run(&plan, |done| {
        assert_eq!(told.fetch_add(1, Ordering::Relaxed) + 1, done);
    }))
    .await;
    assert_eq!(told.into_inner(), 20);
    peer.finish().await;
}

#[tokio::test]
async fn a_rate_is_not_exceeded_and_a_duration_ends_a_run() {
    let peer =
        Peer::start(|mut stream, _| async move { answer(&mut stream, usize::MAX).await }).await;
    let paced = Plan {
        rate: Some(1000.0),
        connections: 3,
        ..plan(&peer, 50)
    };
    let report = soon(run(&paced, |_| {})).await;
    assert!(report.all_whole());
    assert!(report.seconds >= 0.049, "{report:?}");

    let time = Duration::from_millis(50);
    let report = soon(run(
        &Plan {
            extent: Extent::Duration(time),
            ..paced
        },
        |_| {},
    ))
    .await;
    assert!(report.all_whole());
    assert!(report.requests <= 50, "{report:?}");
    peer.finish().await;
}

#[tokio::test]
async fn the_order_to_stop_ends_a_run_at_once() {
    let peer = Peer::start(|mut stream, _| async move {
        answer(&mut stream, 1).await;
        // No answer to the second, until the client leaves.
        read_request(&mut stream).await;
        read_request(&mut stream).await;
    })
    .await;
    let stop = CancellationToken::new();
    let report = soon(run_until(&plan(&peer, 10), stop.clone(), |_| stop.cancel())).await;
    assert_eq!(
        (report.requests, report.whole, report.interrupted),
        (1, 1, true)
    );
    assert!(!report.all_whole());
    peer.finish().await;
}
