//! `rstlab check` of servers that do not speak HTTP or speak it badly: the error or the verdict is clear and in time.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use rstlab_lab::judges::check::{
    self, CannotCheck, CheckPlan, CheckReport, CheckVerdict, Target, TrialOutcome,
};
use rstlab_tests::{
    Peer, PeerEnd, assert_contains, content_length, cut, head_field, soon, try_read_head,
    until_sent,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener};

fn plan(peer: &Peer) -> CheckPlan {
    CheckPlan {
        trials: 2,
        timeout: Duration::from_millis(500),
        scenarios: vec!["body-after-gap".to_owned()],
        body_sizes: vec![60_000],
        gaps: vec![Duration::from_millis(2)],
        ..CheckPlan::new(Target::from(peer.address))
    }
}

async fn check_it(peer: Peer) -> Result<CheckReport, CannotCheck> {
    let plan = plan(&peer);
    check_as(peer, plan).await
}

async fn check_as(peer: Peer, plan: CheckPlan) -> Result<CheckReport, CannotCheck> {
    let report = soon(check::run(&plan, |_, _| {})).await;
    peer.finish().await;
    report
}

/// The report of the scenario with two requests on a connection, and small bodies.
async fn check_keep_alive(peer: Peer) -> CheckReport {
    let plan = CheckPlan {
        scenarios: vec!["keep-alive".to_owned()],
        body_sizes: vec![22],
        ..plan(&peer)
    };
    check_as(peer, plan).await.unwrap()
}

/// Reads until the client leaves, and says nothing.
async fn listen(mut stream: TcpStream) {
    let mut buf = [0; 4096];
    while matches!(stream.read(&mut buf).await, Ok(bytes) if bytes > 0) {}
}

#[tokio::test]
async fn a_server_that_says_nothing_cannot_be_checked() {
    let peer = Peer::start(|stream, _| listen(stream)).await;
    let error = check_it(peer).await.unwrap_err();
    assert!(matches!(error, CannotCheck::Silent { .. }), "{error}");
    assert_contains(&error.to_string(), &["does not answer within 500ms"]);
}

#[tokio::test]
async fn a_server_that_speaks_something_else_cannot_be_checked() {
    let peer = Peer::answering("220 mail.example ESMTP\r\n", PeerEnd::Close).await;
    let error = check_it(peer).await.unwrap_err();
    assert!(matches!(error, CannotCheck::NotHttp { .. }), "{error}");
    assert_contains(&error.to_string(), &["\"220 mail.example ESMTP"]);
}

#[tokio::test]
async fn a_server_that_speaks_tls_is_recognized() {
    // A fatal alert: unexpected_message.
    let peer = Peer::answering(b"\x15\x03\x01\x00\x02\x02\x0a", PeerEnd::Close).await;
    let error = check_it(peer).await.unwrap_err();
    assert_contains(&error.to_string(), &["TLS: the port speaks https"]);
}

/// An empty SETTINGS frame, as a server sends it first (RFC 9113 §3.4).
#[tokio::test]
async fn a_server_that_speaks_http_2_is_recognized() {
    let peer = Peer::answering(b"\x00\x00\x00\x04\x00\x00\x00\x00\x00", PeerEnd::Close).await;
    let error = check_it(peer).await.unwrap_err();
    assert_contains(&error.to_string(), &["HTTP/2: the port speaks it"]);
}

#[tokio::test]
async fn a_server_that_answers_400_because_it_speaks_tls_is_recognized() {
    let bad_request = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    // A fatal alert, handshake_failure, and the beginning of a ServerHello.
    let alert = &b"\x15\x03\x03\x00\x02\x02\x28"[..];
    for answer in [alert, b"\x16\x03\x03\x00\x7a\x02"] {
        let peer = Peer::start(move |mut stream, _| async move {
            let mut begin = [0];
            stream.peek(&mut begin).await.unwrap();
            let handshake = begin == [0x16];
            read_to_empty_line(&mut stream).await;
            let answer = if handshake { answer } else { &bad_request[..] };
            stream.write_all(answer).await.unwrap();
        })
        .await;
        let error = check_it(peer).await.unwrap_err();
        assert_contains(&error.to_string(), &["TLS: the port speaks https"]);
    }
    // A server that closes the connection of a plain request speaks TLS, too.
    let peer = Peer::start(move |mut stream, _| async move {
        let mut begin = [0];
        stream.peek(&mut begin).await.unwrap();
        read_to_empty_line(&mut stream).await;
        let answer = if begin == [0x16] { alert } else { &[] };
        stream.write_all(answer).await.unwrap();
    })
    .await;
    let error = check_it(peer).await.unwrap_err();
    assert_contains(&error.to_string(), &["TLS: the port speaks https"]);
    // A server that answers everything with 400 does not speak TLS.
    let peer = Peer::start(move |mut stream, _| async move {
        read_to_empty_line(&mut stream).await;
        stream.write_all(bad_request).await.unwrap();
    })
    .await;
    assert_eq!(check_it(peer).await.unwrap().plain.status, 400);
}

/// Reads up to an empty line.
async fn read_to_empty_line(stream: &mut TcpStream) {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => bytes.push(byte),
            Err(_) => return,
        }
    }
}

#[tokio::test]
async fn a_server_that_closes_or_resets_at_once_cannot_be_checked() {
    for (end, how) in [
        (PeerEnd::Close, "closes the connection without a byte"),
        (PeerEnd::Reset, "resets the connection without a byte"),
    ] {
        let peer = Peer::start(move |mut stream, _| async move {
            try_read_head(&mut stream).await;
            end.put(stream);
        })
        .await;
        let error = check_it(peer).await.unwrap_err();
        assert!(matches!(error, CannotCheck::Nothing { .. }), "{error}");
        assert_contains(&error.to_string(), &[how]);
    }
}

#[tokio::test]
async fn a_response_that_never_ends_cannot_be_checked() {
    for head in [
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffff\r\n",
        "HTTP/1.1 200 OK\r\nX: ",
    ] {
        let peer = Peer::start(move |mut stream, _| async move {
            try_read_head(&mut stream).await;
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
async fn a_port_where_nobody_listens_cannot_be_checked() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = soon(check::run(
        &CheckPlan::new(Target::from(address)),
        |_, _| {},
    ))
    .await;
    let error = error.unwrap_err();
    assert!(matches!(error, CannotCheck::Connect { .. }), "{error}");
}

/// The report on a server that answers requests without a body well, and leaves the other connections to `bad`.
async fn two_ways<F>(bad: impl Fn(TcpStream) -> F + Clone + Send + Sync + 'static) -> CheckReport
where
    F: Future<Output = ()> + Send,
{
    let peer = Peer::start(move |mut stream, _| {
        let bad = bad.clone();
        async move {
            let Some(head) = try_read_head(&mut stream).await else {
                return;
            };
            let length = content_length(&head);
            if length == 0 {
                return stream.write_all(&cut(9, 9)).await.unwrap();
            }
            // The search for drain bounds sends a head alone.
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

fn outcomes(report: &CheckReport, outcome: TrialOutcome) -> u64 {
    let clients = &report.scenarios[0].clients;
    clients
        .iter()
        .map(|one| one.counts.outcomes.of(outcome))
        .sum()
}

#[tokio::test]
async fn a_server_that_never_answers_a_body_gives_no_verdict() {
    let report = two_ways(listen).await;
    assert_eq!(report.verdict, CheckVerdict::CannotTell);
    assert_eq!(outcomes(&report, TrialOutcome::Timeout), 12);
}

#[tokio::test]
async fn a_server_that_closes_instead_of_answering_a_body_loses_the_response() {
    let report = two_ways(|stream| async { drop(stream) }).await;
    assert_eq!(report.verdict, CheckVerdict::Loses);
    assert_eq!(outcomes(&report, TrialOutcome::NoResponseEof), 12);
}

#[tokio::test]
async fn a_cut_response_without_a_length_is_found_by_comparing_it_with_the_whole_one() {
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
        assert_eq!(outcomes(&report, TrialOutcome::TruncatedByEof), 12);
        assert_eq!(report.lost_bytes(), 12 * lost_bytes);
    }
    // A shorter response with another text is not a cut one.
    let report = two_ways(|mut stream| async move {
        let other = b"HTTP/1.1 200 OK\r\n\r\n22 B";
        stream.write_all(other).await.unwrap();
    })
    .await;
    assert_eq!(report.verdict, CheckVerdict::Pass);
}

#[tokio::test]
async fn a_100_continue_in_two_segments_is_understood() {
    let peer = Peer::start(|mut stream, _| async move {
        let Some(head) = try_read_head(&mut stream).await else {
            return;
        };
        let length = content_length(&head);
        if head_field(&head, "expect").is_some() {
            stream.write_all(b"HTTP/1.").await.unwrap();
            // Time for the client to look at the first segment. A client that looks later sees both segments at once.
            until_sent(&stream).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            stream.write_all(b"1 100 Continue\r\n\r\n").await.unwrap();
        }
        // The search for drain bounds sends a head alone.
        if stream
            .read_exact(&mut vec![0; length.min(1_000_000)])
            .await
            .is_ok()
        {
            stream.write_all(&cut(9, 9)).await.unwrap();
        }
    })
    .await;
    let plan = CheckPlan {
        scenarios: vec!["expect-continue".to_owned()],
        timeout: Duration::from_secs(5),
        ..plan(&peer)
    };
    let report = check_as(peer, plan).await.unwrap();
    assert_eq!(report.verdict, CheckVerdict::Pass, "{report:#?}");
}

#[tokio::test]
async fn a_content_length_of_64_bits_is_counted_without_overflow() {
    let report = two_ways(|mut stream| async move {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\nx", u64::MAX);
        stream.write_all(head.as_bytes()).await.unwrap();
    })
    .await;
    assert_eq!(outcomes(&report, TrialOutcome::TruncatedByEof), 12);
    assert_eq!(report.lost_bytes(), u64::MAX);
}

#[tokio::test]
async fn a_body_taken_for_a_request_is_a_bad_response() {
    let peer = Peer::start(|mut stream, _| async move {
        // This server never reads a body, and keeps the connection nevertheless.
        while let Some(head) = try_read_head(&mut stream).await {
            let sound = head.starts_with("POST ");
            let status = if sound { "200 OK" } else { "400 Bad Request" };
            let response = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
            stream.write_all(response.as_bytes()).await.unwrap();
        }
    })
    .await;
    let report = check_keep_alive(peer).await;
    assert_eq!(
        outcomes(&report, TrialOutcome::BadResponse),
        6,
        "{report:#?}"
    );
    assert_contains(&report.scenarios[0].sentence, &["taken for a request"]);
}

#[tokio::test]
async fn a_response_without_a_request_is_a_bad_response() {
    let peer = Peer::start(|mut stream, _| async move {
        // This server answers a body at once, as if it were a request.
        while let Some(head) = try_read_head(&mut stream).await {
            let length = content_length(&head);
            let twice = if length > 0 { 2 } else { 1 };
            stream.write_all(&cut(9, 9).repeat(twice)).await.unwrap();
            if head.contains("close") {
                return;
            }
        }
    })
    .await;
    let report = check_keep_alive(peer).await;
    assert_eq!(
        outcomes(&report, TrialOutcome::BadResponse),
        6,
        "{report:#?}"
    );
    let part = "nobody asked for: the body may have been taken for a request";
    assert_contains(&report.scenarios[0].sentence, &[part]);
}

#[tokio::test]
async fn a_response_with_too_many_fields_is_still_called_http() {
    let fields = "A: b\r\n".repeat(129);
    let response = format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 0\r\n\r\n");
    let peer = Peer::answering(response, PeerEnd::Close).await;
    let error = check_it(peer).await.unwrap_err().to_string();
    let why = ": HTTP/1 with more than 128 header fields, and rstlab reads no more";
    assert!(error.ends_with(why), "{error}");
}

#[tokio::test]
async fn a_close_between_two_requests_is_not_a_loss() {
    let peer = Peer::start(|mut stream, _| async move {
        let head = try_read_head(&mut stream).await.unwrap_or_default();
        let length = content_length(&head);
        let mut body = vec![0; length.min(100)];
        if stream.read_exact(&mut body).await.is_ok() && !head.is_empty() {
            stream.write_all(&cut(9, 9)).await.unwrap();
        }
    })
    .await;
    let report = check_keep_alive(peer).await;
    assert_eq!(report.verdict, CheckVerdict::Pass, "{report:#?}");
}

#[tokio::test]
async fn a_unix_socket_loses_nothing_when_it_is_reset() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("server");
    let listener = UnixListener::bind(&path).unwrap();
    let server = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            if try_read_head(&mut stream).await.is_some()
                && stream.write_all(&cut(614_400, 614_400)).await.is_ok()
            {
                // Waits for the body, and does not read it.
                let _ = stream.readable().await;
            }
        }
    });
    let plan = CheckPlan {
        trials: 2,
        scenarios: vec!["body-after-gap".to_owned()],
        ..CheckPlan::new(Target {
            address: check::Address::Unix(path),
            host: "localhost".to_owned(),
            path: "/".to_owned(),
        })
    };
    let report = soon(check::run(&plan, |_, _| {})).await.unwrap();
    server.abort();
    assert_eq!(report.verdict, CheckVerdict::Harmless, "{report:#?}");
}
