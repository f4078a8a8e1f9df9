//! Each kind of server lands in exactly its class, with exact bytes lost.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use rstlab_lab::load::{Cuts, Extent, Plan, Report, Target, Writes, run};
use support::{End, Peer, cut, read_head, read_request, soon, until_sent, until_unread};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};

const REQUESTS: u64 = 20;

fn plan(peer: &Peer) -> Plan {
    Plan {
        extent: Extent::Requests(REQUESTS),
        connections: 4,
        ..Plan::new(Target::from(peer.address))
    }
}

fn post(peer: &Peer, bytes: u64) -> Plan {
    Plan {
        body_bytes: Some(bytes),
        ..plan(peer)
    }
}

async fn report(plan: &Plan) -> Report {
    let report = soon(run(plan, |_| {})).await;
    let truncated = report.truncated.total() + report.no_response.total();
    let sum = report.whole + truncated + report.refused + report.timeouts + report.bad_responses;
    assert_eq!(report.requests, sum, "{report:?}");
    let statuses = report.status_2xx_3xx + report.status_4xx + report.status_5xx;
    assert_eq!(report.whole, statuses, "{report:?}");
    assert!(!report.interrupted);
    report
}

/// The report of a run in which all went the same way, but for what differs from run to run.
fn alike(report: &Report) -> Report {
    Report {
        seconds: 0.0,
        latency_us: None,
        failures: Vec::new(),
        ..report.clone()
    }
}

/// Every request failed in the same way; says how.
fn failure(report: &Report) -> String {
    let [failure] = &report.failures[..] else {
        panic!("not one kind of failure: {report:?}");
    };
    assert_eq!(failure.count, REQUESTS);
    assert_eq!(failure.lost_bytes, report.lost_bytes);
    let call = failure.call.as_deref().unwrap_or("-");
    let errno = failure.errno.unwrap_or(0);
    format!("{} {} {call} {errno}", failure.outcome, failure.phase)
}

#[tokio::test]
async fn whole_responses_of_each_status() {
    for (status, body) in [
        ("200 OK", "hello"),
        ("404 Not Found", ""),
        ("503 Busy", "later"),
    ] {
        let text = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        let peer = Peer::answering(text, End::Close).await;
        let report = report(&plan(&peer)).await;
        let of = |class: char| {
            if status.starts_with(class) {
                REQUESTS
            } else {
                0
            }
        };
        let expected = Report {
            requests: REQUESTS,
            whole: REQUESTS,
            status_2xx_3xx: of('2'),
            status_4xx: of('4'),
            status_5xx: of('5'),
            body_bytes: REQUESTS * body.len() as u64,
            ..Report::default()
        };
        assert_eq!(alike(&report), expected);
        assert!(report.all_whole() && report.failures.is_empty());
        let latency = report.latency_us.unwrap();
        assert!(0 < latency.p50 && latency.p50 <= latency.p999 && latency.p999 <= latency.max);
        assert_eq!(peer.finish().await as u64, REQUESTS);
    }
}

#[tokio::test]
async fn a_response_cut_by_a_fin() {
    let peer = Peer::answering(cut(1000, 400), End::Close).await;
    let report = report(&plan(&peer)).await;
    let expected = Report {
        requests: REQUESTS,
        truncated: Cuts {
            by_eof: REQUESTS,
            ..Cuts::default()
        },
        body_bytes: REQUESTS * 400,
        lost_bytes: REQUESTS * 600,
        ..Report::default()
    };
    assert_eq!(alike(&report), expected);
    assert_eq!(failure(&report), "truncated reading-body - 0");
    assert!(!report.all_whole() && report.latency_us.is_none());
    peer.finish().await;
}

#[tokio::test]
async fn a_response_cut_by_a_reset() {
    let peer = Peer::answering(cut(1000, 400), End::Reset).await;
    let report = report(&plan(&peer)).await;
    let expected = Report {
        requests: REQUESTS,
        truncated: Cuts {
            by_reset: REQUESTS,
            ..Cuts::default()
        },
        resets: REQUESTS,
        body_bytes: REQUESTS * 400,
        lost_bytes: REQUESTS * 600,
        ..Report::default()
    };
    assert_eq!(alike(&report), expected);
    assert_eq!(failure(&report), "truncated reading-body recv() 104");
    peer.finish().await;
}

#[tokio::test]
async fn a_response_cut_because_the_body_lay_unread() {
    let peer = Peer::start(|mut stream, _| async move {
        read_head(&mut stream).await.unwrap();
        until_unread(&stream, 22).await;
        stream.write_all(&cut(1000, 400)).await.unwrap();
    })
    .await;
    for writes in [
        Writes::Joined,
        Writes::Split {
            gap: Duration::from_millis(1),
        },
    ] {
        let report = report(&Plan {
            writes,
            ..post(&peer, 22)
        })
        .await;
        assert_eq!(
            report.truncated,
            Cuts {
                by_reset: REQUESTS,
                ..Cuts::default()
            }
        );
        assert_eq!(report.lost_bytes, REQUESTS * 600);
        assert_eq!(failure(&report), "truncated reading-body recv() 104");
    }
    peer.finish().await;
}

#[tokio::test]
async fn a_chunked_response_that_is_cut_has_no_known_loss() {
    let text = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    let peer = Peer::answering(text, End::Close).await;
    let report = report(&plan(&peer)).await;
    assert_eq!(
        report.truncated,
        Cuts {
            by_eof: REQUESTS,
            ..Cuts::default()
        }
    );
    assert_eq!((report.body_bytes, report.lost_bytes), (REQUESTS * 5, 0));
    peer.finish().await;
}

#[tokio::test]
async fn the_end_of_the_stream_ends_a_response_without_a_length_but_a_reset_cuts_it() {
    let text = "HTTP/1.0 200 OK\r\n\r\nhello";
    let peer = Peer::answering(text, End::Close).await;
    assert!(report(&plan(&peer)).await.all_whole());
    peer.finish().await;

    let peer = Peer::answering(text, End::Reset).await;
    let report = report(&plan(&peer)).await;
    assert_eq!(
        report.truncated,
        Cuts {
            by_reset: REQUESTS,
            ..Cuts::default()
        }
    );
    assert_eq!((report.body_bytes, report.lost_bytes), (REQUESTS * 5, 0));
    peer.finish().await;
}

#[tokio::test]
async fn no_response() {
    let by_reset = Cuts {
        by_reset: REQUESTS,
        ..Cuts::default()
    };
    let by_eof = Cuts {
        by_eof: REQUESTS,
        ..Cuts::default()
    };
    for (bytes, end, cuts, how) in [
        ("", End::Reset, by_reset, "waiting recv() 104"),
        (
            "HTTP/1.1 2",
            End::Reset,
            by_reset,
            "reading-head recv() 104",
        ),
        ("", End::Close, by_eof, "waiting - 0"),
        ("HTTP/1.1 2", End::Close, by_eof, "reading-head - 0"),
    ] {
        let peer = Peer::answering(bytes, end).await;
        let report = report(&plan(&peer)).await;
        let expected = Report {
            requests: REQUESTS,
            no_response: cuts,
            resets: cuts.by_reset,
            ..Report::default()
        };
        assert_eq!(alike(&report), expected);
        assert_eq!(failure(&report), format!("no-response {how}"));
        peer.finish().await;
    }
}

#[tokio::test]
async fn answers_that_are_not_http() {
    for bytes in [
        "220 mail.example ESMTP\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        "HTTP/1.1 799 ?\r\nContent-Length: 0\r\n\r\n",
    ] {
        let peer = Peer::answering(bytes, End::Close).await;
        let report = report(&plan(&peer)).await;
        assert_eq!(report.bad_responses, REQUESTS, "{bytes:?}");
        assert!(failure(&report).starts_with("bad-response"));
        peer.finish().await;
    }
}

#[tokio::test]
async fn refused() {
    // Bound, so that nobody else gets the port, and not listening.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let plan = Plan {
        extent: Extent::Requests(REQUESTS),
        ..Plan::new(socket.local_addr().unwrap().into())
    };
    let report = report(&plan).await;
    assert_eq!((report.requests, report.refused), (REQUESTS, REQUESTS));
    assert_eq!(failure(&report), "refused connecting connect() 111");
}

#[tokio::test]
async fn the_time_limit() {
    // The kernel takes the connections; nobody ever accepts them.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let plan = Plan {
        extent: Extent::Requests(4),
        timeout: Duration::from_millis(20),
        ..Plan::new(listener.local_addr().unwrap().into())
    };
    let report = report(&plan).await;
    assert_eq!((report.requests, report.timeouts), (4, 4));
    assert!(report.seconds >= 0.02);
}

#[tokio::test]
async fn a_reset_after_the_whole_response_is_harmless() {
    let peer = Peer::start(|mut stream, _| async move {
        read_head(&mut stream).await.unwrap();
        until_unread(&stream, 22).await;
        let text = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
        stream.write_all(text.as_bytes()).await.unwrap();
    })
    .await;
    let report = report(&post(&peer, 22)).await;
    let expected = Report {
        requests: REQUESTS,
        whole: REQUESTS,
        status_2xx_3xx: REQUESTS,
        resets: REQUESTS,
        harmless_resets: REQUESTS,
        body_bytes: REQUESTS * 5,
        ..Report::default()
    };
    assert_eq!(alike(&report), expected);
    assert_eq!(failure(&report), "harmless after-response recv() 104");
    assert!(report.all_whole());
    peer.finish().await;
}

#[tokio::test]
async fn an_answer_before_the_body_was_read_is_taken_though_sending_fails() {
    let peer = Peer::start(|mut stream, _| async move {
        read_head(&mut stream).await.unwrap();
        until_unread(&stream, 1).await;
        let head = "HTTP/1.1 413 Too Large\r\nContent-Length: 50000\r\nConnection: close\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&[b'x'; 50_000]).await.unwrap();
        // The reset destroys what is unsent: all must lie in the client's queue by then.
        until_sent(&stream).await;
    })
    .await;
    // More than all socket buffers hold: it can't be sent before the answer comes.
    let report = report(&post(&peer, 50_000_000)).await;
    assert_eq!((report.whole, report.status_4xx), (REQUESTS, REQUESTS));
    assert_eq!(report.body_bytes, REQUESTS * 50_000);
    assert_eq!(
        (report.resets, report.harmless_resets),
        (REQUESTS, REQUESTS)
    );
    peer.finish().await;
}

#[tokio::test]
async fn a_large_response_is_counted_to_the_byte() {
    let bytes = 5_000_000;
    let peer = Peer::answering(cut(bytes, bytes), End::Close).await;
    let report = report(&plan(&peer)).await;
    assert!(report.all_whole());
    assert_eq!(report.body_bytes, REQUESTS * bytes as u64);
    peer.finish().await;
}

#[tokio::test]
async fn interim_responses_do_not_count() {
    let text = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello";
    let peer = Peer::answering(text, End::Reset).await;
    let report = report(&plan(&peer)).await;
    assert_eq!(report.truncated.by_reset, REQUESTS);
    assert_eq!(report.lost_bytes, REQUESTS * 4);
    assert_eq!(failure(&report), "truncated reading-body recv() 104");
    peer.finish().await;
}

#[tokio::test]
async fn the_request_says_what_was_asked_for() {
    let peer = Peer::start(|mut stream, _| async move {
        // One writev(2) is one segment here, and comes with one read.
        let mut buf = [0; 8192];
        let read = stream.read(&mut buf).await.unwrap();
        let text = String::from_utf8_lossy(&buf[..read]);
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("POST /a?b HTTP/1.1\r\n"), "{head}");
        assert_eq!(support::field(head, "host"), Some("example:1"));
        assert_eq!(support::field(head, "content-length"), Some("22"));
        assert_eq!(support::field(head, "connection"), None);
        assert_eq!(body, "x".repeat(22));
        stream
            .write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
    })
    .await;
    let mut plan = post(&peer, 22);
    plan.target.host = "example:1".parse().unwrap();
    plan.target.path = "/a?b".parse().unwrap();
    assert!(report(&plan).await.all_whole());
    peer.finish().await;
}

#[tokio::test]
async fn a_split_request_pauses_between_head_and_body() {
    let peer = Peer::start(|mut stream, _| async move {
        let (head, body) = read_request(&mut stream).await.unwrap();
        assert_eq!(support::field(&head, "connection"), Some("close"));
        assert_eq!(body, 200_000);
        stream
            .write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
            .await
            .unwrap();
        // A split needs a connection of its own.
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    })
    .await;
    let gap = Duration::from_millis(20);
    let plan = Plan {
        writes: Writes::Split { gap },
        ..post(&peer, 200_000)
    };
    let report = report(&plan).await;
    assert!(report.all_whole());
    // Nobody answers before the body came, and that comes after the pause. The histogram has three digits.
    assert!(report.latency_us.unwrap().p50 >= 19_900);
    assert_eq!(peer.finish().await as u64, REQUESTS);
}
