//! `rstlab load` on kept connections, and the pace and the end of a run.

#![allow(clippy::unwrap_used)]

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rstlab_lab::makes::load::{Extent, LoadPlan, LoadReport, Target, run, run_until};
use rstlab_tests::{Peer, PeerEnd, read_request, soon};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const HELLO: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

fn plan(peer: &Peer, requests: u64) -> LoadPlan {
    LoadPlan {
        extent: Extent::Requests(requests),
        connections: 1,
        ..LoadPlan::new(Target::from(peer.address))
    }
}

/// Answers at most `most` requests, until the client closes.
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
        let plan = LoadPlan {
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
async fn a_server_s_close_between_two_requests_is_no_failure() {
    // The server does not announce its close, so either its FIN or the next request may come first.
    let peer = Peer::start(|mut stream, _| async move { answer(&mut stream, 2).await }).await;
    let report = soon(run(&plan(&peer, 20), |_| {})).await;
    assert!(report.all_whole(), "{report:?}");
    assert_eq!(report.resets, report.harmless_resets);
    assert_eq!(peer.finish().await, 10);
}

#[tokio::test]
async fn a_get_on_a_kept_connection_that_ends_without_an_answer_is_sent_again() {
    let report = second_request_meets(PeerEnd::Reset, None).await;
    assert!(report.all_whole(), "{report:?}");
    assert_eq!((report.requests, report.sent_again), (2, 1));
    assert_eq!((report.resets, report.harmless_resets), (1, 1));

    let report = second_request_meets(PeerEnd::Close, None).await;
    assert!(report.all_whole(), "{report:?}");
    assert_eq!((report.sent_again, report.resets), (1, 0));
}

#[tokio::test]
async fn a_post_that_ends_without_an_answer_is_not_sent_again() {
    let report = second_request_meets(PeerEnd::Reset, Some(22)).await;
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

    let report = second_request_meets(PeerEnd::Close, Some(22)).await;
    assert_eq!((report.whole, report.no_response.by_eof), (1, 1));
}

/// The report of two requests on one connection: the server reads the second one and ends without an answer.
async fn second_request_meets(end: PeerEnd, body_bytes: Option<u64>) -> LoadReport {
    let peer = Peer::start(move |mut stream, number| async move {
        answer(&mut stream, 1).await;
        if number == 0 {
            read_request(&mut stream).await.unwrap();
            end.put(stream);
        }
    })
    .await;
    let report = soon(run(
        &LoadPlan {
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
async fn load_reports_its_progress_after_every_request() {
    let peer = Peer::answering(HELLO, PeerEnd::Close).await;
    let plan = LoadPlan {
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
    let paced = LoadPlan {
        rate: Some(1000.0),
        connections: 3,
        ..plan(&peer, 50)
    };
    let report = soon(run(&paced, |_| {})).await;
    assert!(report.all_whole());
    assert!(report.seconds >= 0.049, "{report:?}");

    let time = Duration::from_millis(50);
    let report = soon(run(
        &LoadPlan {
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
async fn the_requests_of_a_warm_up_are_done_before_the_others_start_and_are_not_counted() {
    let (sender, mut requests) = mpsc::unbounded_channel();
    let peer = Peer::start(move |mut stream, _| {
        let sender = sender.clone();
        async move {
            while read_request(&mut stream).await.is_some() {
                sender.send(()).unwrap();
                stream.write_all(HELLO).await.unwrap();
            }
        }
    })
    .await;
    let plan = LoadPlan {
        warm_up: 2,
        connections: 4,
        ..plan(&peer, 5)
    };
    let before = OnceLock::new();
    let last = AtomicU64::new(0);
    let report = soon(run(&plan, |done| {
        if done == 0 {
            before.get_or_init(|| requests.len());
        }
        last.store(done, Ordering::Relaxed);
    }))
    .await;
    assert!(report.all_whole());
    assert_eq!((report.requests, report.body_bytes), (5, 25));
    assert_eq!((before.into_inner(), last.into_inner()), (Some(2), 5));
    assert_eq!(requests.recv_many(&mut Vec::new(), 100).await, 7);
    peer.finish().await;
}

#[tokio::test]
async fn the_order_to_stop_ends_a_load_at_once() {
    let peer = Peer::start(|mut stream, _| async move {
        answer(&mut stream, 1).await;
        // The second request gets no answer, and the last read ends when the client leaves.
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
