//! `rstlab check --through` with proxies that leave their clients waiting, or go away.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use rstlab_lab::judges::check::through::{self, CannotTest, ThroughReport, Untried};
use rstlab_lab::judges::check::{CannotCheck, CheckPlan, Target};
use rstlab_tests::{Peer, check_schema, content_length, soon, try_read_head};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

/// The answer that the upstream would have given.
fn answer() -> Vec<u8> {
    let head = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 401\r\n\r\n";
    [head.as_bytes(), &[b'x'; 401]].concat()
}

/// Passes the answer on if the body is small; otherwise waits for the client to leave.
async fn waits_with_a_body(mut stream: TcpStream) {
    let head = try_read_head(&mut stream).await.unwrap();
    if content_length(&head) < 1000 {
        stream.write_all(&answer()).await.unwrap();
    }
    let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
}

async fn check(plan: &CheckPlan) -> Result<ThroughReport, CannotTest> {
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    soon(through::run(plan, upstream, |_, _| {})).await
}

#[tokio::test]
async fn a_size_at_which_every_client_times_out_is_given_up() {
    let proxy = Peer::start(|stream, _| waits_with_a_body(stream)).await;
    let plan = CheckPlan {
        body_sizes: vec![22, 100_000],
        timeout: Duration::from_millis(100),
        ..CheckPlan::through(Target::from(proxy.address))
    };
    let report = check(&plan).await.unwrap();
    proxy.finish().await;
    let [small, large] = &report.sizes[..] else {
        panic!("two sizes");
    };
    assert_eq!((small.clients, small.answered), (100, 100));
    assert_eq!((large.clients, large.answered), (3, 0));
    assert_eq!(large.others["a time-out"], 3);
    assert_eq!(large.untried[&Untried::TimeOuts], 97);
    assert!(!report.all_answered());
    check_schema("through", &serde_json::to_value(&report).unwrap()).unwrap();
}

#[tokio::test]
async fn answers_of_a_proxy_that_has_ended_are_not_counted_as_lost() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let proxy = tokio::spawn(async move {
        for _ in 0..4 {
            waits_with_a_body(listener.accept().await.unwrap().0).await;
        }
        let (last, _) = listener.accept().await.unwrap();
        // No other connection waits in its queue.
        drop(listener);
        waits_with_a_body(last).await;
    });
    let plan = CheckPlan {
        body_sizes: vec![22],
        ..CheckPlan::through(Target::from(address))
    };
    let error = check(&plan).await.unwrap_err();
    soon(proxy).await.unwrap();
    // One of them was the request without a body.
    assert!(
        matches!(error, CannotTest::Check(CannotCheck::Gone { made: 4, .. })),
        "{error}"
    );
}
