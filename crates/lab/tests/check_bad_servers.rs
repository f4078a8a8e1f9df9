//! `rstlab check` against servers that are none, or bad ones: a clear word, in time.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use rstlab_lab::check::{self, CannotCheck, Outcome, Plan, Report, Target, Verdict};
use support::{End, Peer, cut, field, read_head, soon, until_sent};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener};

fn plan(peer: &Peer) -> Plan {
    Plan {
        trials: 2,
        timeout: Duration::from_millis(500),
        scenarios: vec!["body-after-gap".to_owned()],
        body_sizes: vec![60_000],
        gaps: vec![Duration::from_millis(2)],
        ..Plan::new(Target::from(peer.address))
    }
}

async fn check_it(peer: Peer) -> Result<Report, CannotCheck> {
    let report = soon(check::run(&plan(&peer), |_, _| {})).await;
    peer.finish().await;
    report
}

/// Reads until the client leaves, and says nothing.
async fn listen(mut stream: TcpStream) {
    let mut buf = [0; 4096];
    while matches!(stream.read(&mut buf).await, Ok(bytes) if bytes > 0) {}
}

#[tokio::test]
async fn a_server_that_says_nothing() {
    let peer = Peer::start(|stream, _| listen(stream)).await;
    let error = check_it(peer).await.unwrap_err();
    assert!(matches!(error, CannotCheck::Silent { .. }), "{error}");
    assert!(
        error.to_string().contains("does not answer within 500ms"),
        "{error}"
    );
}

#[tokio::test]
async fn a_server_that_speaks_something_else() {
    let peer = Peer::answering("220 mail.example ESMTP\r\n", End::Close).await;
    let error = check_it(peer).await.unwrap_err();
    assert!(matches!(error, CannotCheck::NotHttp { .. }), "{error}");
    assert!(
        error.to_string().contains("\"220 mail.example ESMTP"),
        "{error}"
    );
}

#[tokio::test]
async fn a_server_that_speaks_tls() {
    // A fatal alert: unexpected_message.
    let peer = Peer::answering(b"\x15\x03\x01\x00\x02\x02\x0a", End::Close).await;
    let error = check_it(peer).await.unwrap_err();
    assert!(
        error.to_string().contains("TLS: the port speaks https"),
        "{error}"
    );
}

#[tokio::test]
async fn a_server_that_answers_400_because_it_speaks_tls() {
    let bad_request = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    // A fatal alert, handshake_failure, and the beginning of a ServerHello.
    let alert = &b"\x15\x03\x03\x00\x02\x02\x28"[..];
    for answer in [alert, b"\x16\x03\x03\x00\x7a\x02"] {
        let peer = Peer::start(move |mut stream, _| async move {
            let mut begin = [0];
            stream.peek(&mut begin).await.unwrap();
            let handshake = begin == [0x16];
            read_lines(&mut stream).await;
            let answer = if handshake { answer } else { &bad_request[..] };
            stream.write_all(answer).await.unwrap();
        })
        .await;
        let error = check_it(peer).await.unwrap_err();
        assert!(
            error.to_string().contains("TLS: the port speaks https"),
            "{error}"
        );
    }
    // Whoever answers everything with 400 does not speak TLS.
    let peer = Peer::start(move |mut stream, _| async move {
        read_lines(&mut stream).await;
        stream.write_all(bad_request).await.unwrap();
    })
    .await;
    assert_eq!(check_it(peer).await.unwrap().plain.status, 400);
}

/// Reads up to an empty line.
async fn read_lines(stream: &mut TcpStream) {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => bytes.push(byte),
            Err(_) => return,
        }
    }
}

#[tokio::test]
async fn a_server_that_closes_at_once_or_resets() {
    for (end, how) in [
        (End::Close, "closes the connection without a byte"),
        (End::Reset, "resets the connection without a byte"),
    ] {
        let peer = Peer::start(move |mut stream, _| async move {
            read_head(&mut stream).await;
            end.put(stream);
        })
        .await;
        let error = check_it(peer).await.unwrap_err();
        assert!(matches!(error, CannotCheck::Nothing { .. }), "{error}");
        assert!(error.to_string().contains(how), "{error}");
    }
}

#[tokio::test]
async fn a_response_that_never_ends() {
    for head in [
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffff\r\n",
        "HTTP/1.1 200 OK\r\nX: ",
    ] {
        let peer = Peer::start(move |mut stream, _| async move {
            read_head(&mut stream).await;
            stream.write_all(head.as_bytes()).await.unwrap();
            while stream.write_all(&[b'x'; 64 * 1024]).await.is_ok() {}
        })
        .await;
        let error = check_it(peer).await.unwrap_err();
        let said = error.to_string();
        assert!(
            said.contains("does not end within") || said.contains("64 KiB"),
            "{said}"
        );
    }
}

#[tokio::test]
async fn a_port_where_nobody_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = soon(check::run(&Plan::new(Target::from(address)), |_, _| {})).await;
    let error = error.unwrap_err();
    assert!(matches!(error, CannotCheck::Connect { .. }), "{error}");
}

/// Answers a request without a body well, and one with a body in its own way.
async fn two_ways<F>(bad: impl Fn(TcpStream) -> F + Clone + Send + Sync + 'static) -> Report
where
    F: Future<Output = ()> + Send,
{
    let peer = Peer::start(move |mut stream, _| {
        let bad = bad.clone();
        async move {
            let Some(head) = read_head(&mut stream).await else {
                return;
            };
            let length = field(&head, "content-length").map_or(0, |value| value.parse().unwrap());
            if length == 0 {
                return stream.write_all(&cut(9, 9)).await.unwrap();
            }
            // The drain finder sends a head alone.
            if stream
                .read_exact(&mut vec![0; length.min(100_000)])
                .await
                .is_ok()
            {
                bad(stream).await;
            }
        }
    })
    .await;
    check_it(peer).await.unwrap()
}

fn outcomes(report: &Report, outcome: Outcome) -> u64 {
    let clients = &report.scenarios[0].clients;
    clients
        .iter()
        .map(|one| one.counts.outcomes.of(outcome))
        .sum()
}

#[tokio::test]
async fn a_server_that_hangs_with_a_body_can_t_be_judged() {
    let report = two_ways(listen).await;
    assert_eq!(report.verdict, Verdict::CannotTell);
    assert_eq!(outcomes(&report, Outcome::Timeout), 4);
}

#[tokio::test]
async fn a_server_that_closes_with_a_body_loses() {
    let report = two_ways(|stream| async { drop(stream) }).await;
    assert_eq!(report.verdict, Verdict::Loses);
    assert_eq!(outcomes(&report, Outcome::NoResponseEof), 4);
}

#[tokio::test]
async fn a_cut_response_without_a_length_is_seen_against_the_whole_one() {
    for (cut, lost_bytes) in [
        ("HTTP/1.1 200 OK\r\n\r\nxxxxx", 4),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nxxxxxx\r\n",
            3,
        ),
    ] {
        let report = two_ways(move |mut stream| async move {
            stream.write_all(cut.as_bytes()).await.unwrap();
        })
        .await;
        assert_eq!(outcomes(&report, Outcome::TruncatedByEof), 4);
        assert_eq!(report.lost_bytes(), 4 * lost_bytes);
    }
    // A shorter one with another text is another one.
    let report = two_ways(|mut stream| async move {
        let other = b"HTTP/1.1 200 OK\r\n\r\n22 B";
        stream.write_all(other).await.unwrap();
    })
    .await;
    assert_eq!(report.verdict, Verdict::Pass);
}

#[tokio::test]
async fn a_continue_in_two_segments_is_one() {
    let peer = Peer::start(|mut stream, _| async move {
        let Some(head) = read_head(&mut stream).await else {
            return;
        };
        let length = field(&head, "content-length").map_or(0, |value| value.parse().unwrap());
        if field(&head, "expect").is_some() {
            stream.write_all(b"HTTP/1.").await.unwrap();
            // Time for the client to look at it; if it does not, it sees both at once and goes on just as well.
            until_sent(&stream).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            stream.write_all(b"1 100 Continue\r\n\r\n").await.unwrap();
        }
        // The drain finder sends a head alone.
        if stream
            .read_exact(&mut vec![0; length.min(1_000_000)])
            .await
            .is_ok()
        {
            stream.write_all(&cut(9, 9)).await.unwrap();
        }
    })
    .await;
    let plan = Plan {
        scenarios: vec!["expect-continue".to_owned()],
        timeout: Duration::from_secs(5),
        ..plan(&peer)
    };
    let report = soon(check::run(&plan, |_, _| {})).await.unwrap();
    peer.finish().await;
    assert_eq!(report.verdict, Verdict::Pass, "{report:#?}");
}

#[tokio::test]
async fn a_length_that_no_response_has() {
    let report = two_ways(|mut stream| async move {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\nx", u64::MAX);
        stream.write_all(head.as_bytes()).await.unwrap();
    })
    .await;
    assert_eq!(outcomes(&report, Outcome::TruncatedByEof), 4);
    assert_eq!(report.lost_bytes(), u64::MAX);
}

#[tokio::test]
async fn a_body_taken_for_a_request_is_a_bad_response() {
    let peer = Peer::start(|mut stream, _| async move {
        // Never reads a body, and keeps the connection all the same.
        while let Some(head) = read_head(&mut stream).await {
            let sound = head.starts_with("POST ");
            let status = if sound { "200 OK" } else { "400 Bad Request" };
            let response = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
            stream.write_all(response.as_bytes()).await.unwrap();
        }
    })
    .await;
    let plan = Plan {
        scenarios: vec!["keep-alive".to_owned()],
        body_sizes: vec![22],
        ..plan(&peer)
    };
    let report = soon(check::run(&plan, |_, _| {})).await.unwrap();
    peer.finish().await;
    assert_eq!(outcomes(&report, Outcome::BadResponse), 4, "{report:#?}");
    assert!(report.scenarios[0].sentence.contains("taken for a request"));
}

#[tokio::test]
async fn a_response_that_nobody_asked_for_is_a_bad_one() {
    let peer = Peer::start(|mut stream, _| async move {
        // Takes a body for a request at once.
        while let Some(head) = read_head(&mut stream).await {
            let length = field(&head, "content-length").map_or(0, |value| value.parse().unwrap());
            let twice = if length > 0 { 2 } else { 1 };
            stream.write_all(&cut(9, 9).repeat(twice)).await.unwrap();
            if head.contains("close") {
                return;
            }
        }
    })
    .await;
    let plan = Plan {
        scenarios: vec!["keep-alive".to_owned()],
        body_sizes: vec![22],
        ..plan(&peer)
    };
    let report = soon(check::run(&plan, |_, _| {})).await.unwrap();
    peer.finish().await;
    assert_eq!(outcomes(&report, Outcome::BadResponse), 4, "{report:#?}");
    let sentence = &report.scenarios[0].sentence;
    assert!(
        sentence.contains("nobody asked for: the body may have been taken for a request"),
        "{sentence}"
    );
}

#[tokio::test]
async fn a_response_with_very_many_fields_is_http_all_the_same() {
    let fields = "A: b\r\n".repeat(129);
    let response = format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 0\r\n\r\n");
    let peer = Peer::answering(response, End::Close).await;
    let error = check_it(peer).await.unwrap_err().to_string();
    let why = ": HTTP/1 with more than 128 header fields, and rstlab reads no more";
    assert!(error.ends_with(why), "{error}");
}

#[tokio::test]
async fn a_server_may_close_between_two_requests() {
    let peer = Peer::start(|mut stream, _| async move {
        let head = read_head(&mut stream).await.unwrap_or_default();
        let length = field(&head, "content-length").map_or(0, |value| value.parse().unwrap());
        let mut body = vec![0; length.min(100)];
        if stream.read_exact(&mut body).await.is_ok() && !head.is_empty() {
            stream.write_all(&cut(9, 9)).await.unwrap();
        }
    })
    .await;
    let plan = Plan {
        scenarios: vec!["keep-alive".to_owned()],
        body_sizes: vec![22],
        ..plan(&peer)
    };
    let report = soon(check::run(&plan, |_, _| {})).await.unwrap();
    peer.finish().await;
    assert_eq!(report.verdict, Verdict::Pass, "{report:#?}");
}

#[tokio::test]
async fn a_unix_socket_loses_nothing_when_it_is_reset() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("server");
    let listener = UnixListener::bind(&path).unwrap();
    let server = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut byte = [0];
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).await.is_ok() {
                head.push(byte[0]);
            }
            if head.ends_with(b"\r\n\r\n") && stream.write_all(&cut(614_400, 614_400)).await.is_ok()
            {
                // The body has come, and is not read.
                let _ = stream.readable().await;
            }
        }
    });
    let plan = Plan {
        trials: 2,
        scenarios: vec!["body-after-gap".to_owned()],
        ..Plan::new(Target {
            address: check::Address::Unix(path),
            host: "localhost".to_owned(),
            path: "/".to_owned(),
        })
    };
    let report = soon(check::run(&plan, |_, _| {})).await.unwrap();
    server.abort();
    assert_eq!(report.verdict, Verdict::Harmless, "{report:#?}");
}
