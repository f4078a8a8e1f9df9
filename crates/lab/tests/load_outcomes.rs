//! `rstlab load` counts the responses of each kind of server in the right class, with the exact number of lost bytes.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use rstlab_lab::makes::load::{Cuts, Extent, LoadPlan, LoadReport, RequestWrites, Target, run};
use rstlab_tests::{
    Peer, PeerEnd, cut, head_field, read_request, soon, try_read_head, until_sent, until_unread,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};

const REQUESTS: u64 = 20;

/// Every response was cut by a reset.
const ALL_BY_RESET: Cuts = Cuts {
    by_reset: REQUESTS,
    by_eof: 0,
    by_error: 0,
};

/// Every response was cut by an early end of the stream.
const ALL_BY_EOF: Cuts = Cuts {
    by_reset: 0,
    by_eof: REQUESTS,
    by_error: 0,
};

fn plan(peer: &Peer) -> LoadPlan {
    LoadPlan {
        extent: Extent::Requests(REQUESTS),
        connections: 4,
        ..LoadPlan::new(Target::from(peer.address))
    }
}

fn post(peer: &Peer, bytes: u64) -> LoadPlan {
    LoadPlan {
        body_bytes: Some(bytes),
        ..plan(peer)
    }
}

async fn report(plan: &LoadPlan) -> LoadReport {
    let report = soon(run(plan, |_| {})).await;
    let truncated = report.truncated.total() + report.no_response.total();
    let sum = report.whole + truncated + report.refused + report.timeouts + report.bad_responses;
    assert_eq!(report.requests, sum, "{report:?}");
    let statuses = report.status_2xx_3xx + report.status_4xx + report.status_5xx;
    assert_eq!(report.whole, statuses, "{report:?}");
    assert!(!report.interrupted);
    report
}

/// The report without the numbers that differ from run to run.
fn comparable(report: &LoadReport) -> LoadReport {
    LoadReport {
        seconds: 0.0,
        latency_us: None,
        failures: Vec::new(),
        ..report.clone()
    }
}

/// How every request failed, given that all failed in the same way.
fn failure(report: &LoadReport) -> String {
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
async fn whole_responses_are_counted_by_status() {
    for (status, body) in [
        ("200 OK", "hello"),
        ("404 Not Found", ""),
        ("503 Busy", "later"),
    ] {
        let text = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        let peer = Peer::answering(text, PeerEnd::Close).await;
        let report = report(&plan(&peer)).await;
        let of = |class: char| {
            if status.starts_with(class) {
                REQUESTS
            } else {
                0
            }
        };
        let expected = LoadReport {
            requests: REQUESTS,
            whole: REQUESTS,
            status_2xx_3xx: of('2'),
            status_4xx: of('4'),
            status_5xx: of('5'),
            body_bytes: REQUESTS * body.len() as u64,
            ..LoadReport::default()
        };
        assert_eq!(comparable(&report), expected);
        assert!(report.all_whole() && report.failures.is_empty());
        let latency = report.latency_us.unwrap();
        assert!(0 < latency.p50 && latency.p50 <= latency.p999 && latency.p999 <= latency.max);
        assert_eq!(peer.finish().await as u64, REQUESTS);
    }
}

#[tokio::test]
async fn a_response_cut_by_a_fin_is_truncated_by_eof() {
    let peer = Peer::answering(cut(1000, 400), PeerEnd::Close).await;
    let report = report(&plan(&peer)).await;
    let expected = LoadReport {
        requests: REQUESTS,
        truncated: ALL_BY_EOF,
        body_bytes: REQUESTS * 400,
        lost_bytes: REQUESTS * 600,
        ..LoadReport::default()
    };
    assert_eq!(comparable(&report), expected);
    assert_eq!(failure(&report), "truncated reading-body - 0");
    assert!(!report.all_whole() && report.latency_us.is_none());
    peer.finish().await;
}

#[tokio::test]
async fn a_response_cut_by_a_reset_is_truncated_by_it() {
    let peer = Peer::answering(cut(1000, 400), PeerEnd::Reset).await;
    let report = report(&plan(&peer)).await;
    let expected = LoadReport {
        requests: REQUESTS,
        truncated: ALL_BY_RESET,
        resets: REQUESTS,
        body_bytes: REQUESTS * 400,
        lost_bytes: REQUESTS * 600,
        ..LoadReport::default()
    };
    assert_eq!(comparable(&report), expected);
    assert_eq!(failure(&report), "truncated reading-body recv() 104");
    peer.finish().await;
}

#[tokio::test]
async fn a_response_cut_because_the_body_lay_unread_is_truncated_by_a_reset() {
    let peer = Peer::start(|mut stream, _| async move {
        try_read_head(&mut stream).await.unwrap();
        until_unread(&stream, 22).await;
        stream.write_all(&cut(1000, 400)).await.unwrap();
    })
    .await;
    for writes in [
        RequestWrites::Joined,
        RequestWrites::Split {
            gap: Duration::from_millis(1),
        },
    ] {
        let report = report(&LoadPlan {
            writes,
            ..post(&peer, 22)
        })
        .await;
        assert_eq!(report.truncated, ALL_BY_RESET);
        assert_eq!(report.lost_bytes, REQUESTS * 600);
        assert_eq!(failure(&report), "truncated reading-body recv() 104");
    }
    peer.finish().await;
}

#[tokio::test]
async fn a_chunked_response_that_is_cut_has_no_known_loss() {
    let text = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    let peer = Peer::answering(text, PeerEnd::Close).await;
    let report = report(&plan(&peer)).await;
    assert_eq!(report.truncated, ALL_BY_EOF);
    assert_eq!((report.body_bytes, report.lost_bytes), (REQUESTS * 5, 0));
    peer.finish().await;
}

#[tokio::test]
async fn the_end_of_the_stream_ends_a_response_without_a_length_but_a_reset_cuts_it() {
    let text = "HTTP/1.0 200 OK\r\n\r\nhello";
    let peer = Peer::answering(text, PeerEnd::Close).await;
    assert!(report(&plan(&peer)).await.all_whole());
    peer.finish().await;

    let peer = Peer::answering(text, PeerEnd::Reset).await;
    let report = report(&plan(&peer)).await;
    assert_eq!(report.truncated, ALL_BY_RESET);
    assert_eq!((report.body_bytes, report.lost_bytes), (REQUESTS * 5, 0));
    peer.finish().await;
}

#[tokio::test]
async fn a_connection_that_ends_before_the_head_is_no_response() {
    for (bytes, end, cuts, how) in [
        ("", PeerEnd::Reset, ALL_BY_RESET, "waiting recv() 104"),
        (
            "HTTP/1.1 2",
            PeerEnd::Reset,
            ALL_BY_RESET,
            "reading-head recv() 104",
        ),
        ("", PeerEnd::Close, ALL_BY_EOF, "waiting - 0"),
        ("HTTP/1.1 2", PeerEnd::Close, ALL_BY_EOF, "reading-head - 0"),
    ] {
        let peer = Peer::answering(bytes, end).await;
        let report = report(&plan(&peer)).await;
        let expected = LoadReport {
            requests: REQUESTS,
            no_response: cuts,
            resets: cuts.by_reset,
            ..LoadReport::default()
        };
        assert_eq!(comparable(&report), expected);
        assert_eq!(failure(&report), format!("no-response {how}"));
        peer.finish().await;
    }
}

#[tokio::test]
async fn answers_that_are_not_http_are_bad_responses() {
    for bytes in [
        "220 mail.example ESMTP\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        "HTTP/1.1 799 ?\r\nContent-Length: 0\r\n\r\n",
    ] {
        let peer = Peer::answering(bytes, PeerEnd::Close).await;
        let report = report(&plan(&peer)).await;
        assert_eq!(report.bad_responses, REQUESTS, "{bytes:?}");
        assert!(failure(&report).starts_with("bad-response"));
        peer.finish().await;
    }
}

#[tokio::test]
async fn a_port_where_nobody_listens_refuses_every_request() {
    // The socket is bound, so that nobody else gets the port, and does not listen.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let plan = LoadPlan {
        extent: Extent::Requests(REQUESTS),
        ..LoadPlan::new(socket.local_addr().unwrap().into())
    };
    let report = report(&plan).await;
    assert_eq!((report.requests, report.refused), (REQUESTS, REQUESTS));
    assert_eq!(failure(&report), "refused connecting connect() 111");
}

#[tokio::test]
async fn a_connection_that_nobody_accepts_times_out() {
    // The kernel completes the handshakes, and nobody accepts the connections.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let plan = LoadPlan {
        extent: Extent::Requests(4),
        timeout: Duration::from_millis(20),
        ..LoadPlan::new(listener.local_addr().unwrap().into())
    };
    let report = report(&plan).await;
    assert_eq!((report.requests, report.timeouts), (4, 4));
    assert!(report.seconds >= 0.02);
}

#[tokio::test]
async fn a_reset_after_the_whole_response_is_harmless() {
    let peer = Peer::start(|mut stream, _| async move {
        try_read_head(&mut stream).await.unwrap();
        until_unread(&stream, 22).await;
        let text = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
        stream.write_all(text.as_bytes()).await.unwrap();
    })
    .await;
    let report = report(&post(&peer, 22)).await;
    let expected = LoadReport {
        requests: REQUESTS,
        whole: REQUESTS,
        status_2xx_3xx: REQUESTS,
        resets: REQUESTS,
        harmless_resets: REQUESTS,
        body_bytes: REQUESTS * 5,
        ..LoadReport::default()
    };
    assert_eq!(comparable(&report), expected);
    assert_eq!(failure(&report), "harmless after-response recv() 104");
    assert!(report.all_whole());
    peer.finish().await;
}

#[tokio::test]
async fn an_answer_before_the_body_was_read_is_taken_though_sending_fails() {
    let peer = Peer::start(|mut stream, _| async move {
        try_read_head(&mut stream).await.unwrap();
        until_unread(&stream, 1).await;
        let head = "HTTP/1.1 413 Too Large\r\nContent-Length: 50000\r\nConnection: close\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&[b'x'; 50_000]).await.unwrap();
        // The reset destroys unsent bytes, so the whole answer has to be in the client's queue before the close.
        until_sent(&stream).await;
    })
    .await;
    // The body is larger than all socket buffers, so it can't be sent before the answer comes.
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
    let peer = Peer::answering(cut(bytes, bytes), PeerEnd::Close).await;
    let report = report(&plan(&peer)).await;
    assert!(report.all_whole());
    assert_eq!(report.body_bytes, REQUESTS * bytes as u64);
    peer.finish().await;
}

#[tokio::test]
async fn interim_responses_are_not_counted() {
    let text = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello";
    let peer = Peer::answering(text, PeerEnd::Reset).await;
    let report = report(&plan(&peer)).await;
    assert_eq!(report.truncated.by_reset, REQUESTS);
    assert_eq!(report.lost_bytes, REQUESTS * 4);
    assert_eq!(failure(&report), "truncated reading-body recv() 104");
    peer.finish().await;
}

#[tokio::test]
async fn the_request_has_the_method_fields_and_body_that_were_asked_for() {
    let peer = Peer::start(|mut stream, _| async move {
        // On loopback one writev(2) is one segment, which one read returns.
        let mut buf = [0; 8192];
        let read = stream.read(&mut buf).await.unwrap();
        let text = String::from_utf8_lossy(&buf[..read]);
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("POST /a?b HTTP/1.1\r\n"), "{head}");
        assert_eq!(head_field(head, "host"), Some("example:1"));
        assert_eq!(head_field(head, "content-length"), Some("22"));
        assert_eq!(head_field(head, "connection"), None);
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
        assert_eq!(head_field(&head, "connection"), Some("close"));
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
    let plan = LoadPlan {
        writes: RequestWrites::Split { gap },
        ..post(&peer, 200_000)
    };
    let report = report(&plan).await;
    assert!(report.all_whole());
    // The answer comes after the body, and the body after the pause. The histogram has three digits.
    assert!(report.latency_us.unwrap().p50 >= 19_900);
    assert_eq!(peer.finish().await as u64, REQUESTS);
}

/// A TLS alert, an empty SETTINGS frame of HTTP/2, and 400 or nothing to a plain request from a server that speaks TLS.
#[tokio::test]
async fn a_server_with_another_protocol_ends_the_load_and_is_named() {
    let bad_request =
        &b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"[..];
    let alert = &b"\x15\x03\x03\x00\x02\x02\x28"[..];
    let settings = &b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"[..];
    for (plain, to_hello, protocol) in [
        (alert, alert, Some("TLS: the port speaks https")),
        (
            settings,
            settings,
            Some("HTTP/2: the port speaks it without TLS, and no HTTP/1.1"),
        ),
        (bad_request, alert, Some("TLS: the port speaks https")),
        (b"", alert, Some("TLS: the port speaks https")),
        (bad_request, bad_request, None),
        (b"", b"", None),
        (b"220 mail.example ESMTP\r\n", b"502 what?\r\n", None),
    ] {
        let peer = Peer::start(move |mut stream, _| async move {
            let mut begin = [0];
            stream.peek(&mut begin).await.unwrap();
            try_read_head(&mut stream).await;
            let answer = if begin == [0x16] { to_hello } else { plain };
            stream.write_all(answer).await.unwrap();
        })
        .await;
        let mut plan = plan(&peer);
        if protocol.is_some() {
            // The end of the run is not waited for.
            plan.extent = Extent::Duration(Duration::from_secs(3000));
        }
        let report = soon(run(&plan, |_| {})).await;
        assert_eq!(report.other_protocol, protocol);
        assert_eq!(report.interrupted, protocol.is_some());
    }
}
