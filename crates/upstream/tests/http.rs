//! The server answers and refuses requests as an HTTP server should, in every mode.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::time::Duration;

use common::{BODY, LARGE, Pair, mode, post, served};
use rstlab_tests::{Answer, soon};
use rstlab_upstream::{Mode, UpstreamConfig as Config};
use rstlab_wire::close::Peer;
use rstlab_witness::AnswerKind;
use tokio::io::AsyncWriteExt;

async fn ask(config: Config, request: impl AsRef<[u8]>) -> Answer {
    let mut pair = Pair::new(config).await;
    pair.send(request).await;
    let read = pair.read().await;
    pair.summary().await;
    read
}

#[tokio::test]
async fn the_response_is_what_the_settings_say() {
    for each in [
        Mode::Lazy,
        Mode::Drain,
        Mode::Cap,
        Mode::Delay,
        Mode::Linger,
    ] {
        let config = Config {
            response_bytes: 10,
            status: http::StatusCode::IM_A_TEAPOT,
            ..mode(each)
        };
        let request = [post(22).as_bytes(), BODY].concat();
        let read = ask(config, request).await;
        assert!(read.head().starts_with("HTTP/1.1 418 I'm a teapot\r\n"));
        assert_eq!(read.field("connection"), "close");
        assert_eq!(read.field("content-type"), "text/plain; charset=utf-8");
        read.field("date");
        read.assert_whole(10);
    }
}

#[tokio::test]
async fn old_clients_head_and_bodiless_statuses_get_the_framing_they_need() {
    let read = ask(mode(Mode::Drain), "GET / HTTP/1.0\r\n\r\n").await;
    assert!(read.head().starts_with("HTTP/1.0 200 OK"));
    assert_eq!(read.field("connection"), "close");
    read.assert_whole(614_400);

    let read = ask(mode(Mode::Lazy), "HEAD / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(read.field("content-length"), "614400");
    assert_eq!((read.body().len(), read.end.is_ok()), (0, true));

    for status in [204, 304] {
        let config = Config {
            status: http::StatusCode::from_u16(status).unwrap(),
            ..mode(Mode::Lazy)
        };
        let read = ask(config, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert_eq!((read.status(), read.body().len()), (status, 0));
    }
}

#[tokio::test]
async fn a_response_of_zero_bytes_is_whole() {
    let config = Config {
        response_bytes: 0,
        ..mode(Mode::Lazy)
    };
    ask(config, post(0)).await.assert_whole(0);
}

/// The response fits into hyper's buffers and not into the socket's. In that case hyper, prepared for an upgrade, takes
/// the exchange for done. The body is never sent, so that nothing else cuts the response.
#[tokio::test]
async fn an_offered_upgrade_costs_no_bytes() {
    for (each, body) in [(Mode::Drain, 0), (Mode::Lazy, 22)] {
        let config = Config {
            response_bytes: 100_000,
            ..mode(each)
        };
        let mut pair = Pair::with_send_buffer(config, 4096).await;
        let upgrade = "Connection: Upgrade\r\nUpgrade: h2c\r\nHost: ";
        pair.send(post(body).replace("Host: ", upgrade)).await;
        pair.read().await.assert_whole(100_000);
    }
}

#[tokio::test]
async fn a_body_is_asked_for_with_100_continue_if_it_is_read() {
    let head = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 22\r\nExpect: 100-continue\r\n\r\n";
    let mut pair = Pair::new(mode(Mode::Drain)).await;
    pair.send(head).await;
    pair.answer_begins().await;
    pair.send(BODY).await;
    let mut read = pair.read().await;
    let proceed = b"HTTP/1.1 100 Continue\r\n\r\n";
    assert!(read.bytes.starts_with(proceed));
    read.bytes.drain(..proceed.len());
    read.assert_whole(614_400);
    // A mode that ignores the body does not ask for it.
    ask(mode(Mode::Lazy), head).await.assert_whole(614_400);
}

#[tokio::test]
async fn health_checks_are_answered_whatever_the_settings() {
    for each in Mode::ALL {
        let config = Config {
            think: Duration::from_secs(3600),
            status: http::StatusCode::INTERNAL_SERVER_ERROR,
            ..mode(each)
        };
        let read = ask(config, "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert_eq!((read.status(), read.end.is_ok()), (204, true));
    }
}

#[tokio::test]
async fn malformed_heads_are_400_and_the_client_gets_it() {
    let both = "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n";
    let long = format!("X: {}\r\n", "x".repeat(8000));
    for (bad, status) in [
        ("GET /\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/3.0\r\n\r\n".to_owned(), 400),
        ("G@T / HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("GET /\r/ HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nno colon\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nX : y\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nX: a\r\n b\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nX: a\rb\r\n\r\n".to_owned(), 400),
        (
            "POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\n".to_owned(),
            400,
        ),
        (
            "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n".to_owned(),
            400,
        ),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n".to_owned(),
            400,
        ),
        (format!("POST / HTTP/1.1\r\n{both}\r\n"), 400),
        (format!("GET / HTTP/1.1\r\n{}\r\n", long.repeat(3)), 431),
        // Without an end it is refused as soon as it is too large.
        (format!("GET / HTTP/1.1\r\n{}", long.repeat(3)), 431),
    ] {
        for each in [Mode::Lazy, Mode::Drain, Mode::Abort] {
            let mut pair = Pair::new(mode(each)).await;
            // Further bytes lie behind the head, and must not cost the answer.
            pair.send(bad.clone() + &"y".repeat(100_000)).await;
            let read = pair.read().await;
            assert_eq!(read.status(), status, "{bad:?}");
            assert_eq!(read.field("connection"), "close", "{bad:?}");
            assert!(read.end.is_ok(), "{bad:?}: {:?}", read.end);
            let answer = pair.summary().await.answer.unwrap();
            assert_eq!((answer.status, answer.kind), (status, AnswerKind::Refusal));
        }
    }
}

#[tokio::test]
async fn malformed_chunks_are_400_if_the_mode_reads_them() {
    let head = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    for chunk in [
        "+3\r\nabc\r\n",
        "3 3\r\nabc\r\n",
        "-1\r\n",
        "zz\r\n",
        "3\r\nabcd\r\n",
    ] {
        for each in [Mode::Drain, Mode::Cap] {
            let read = ask(mode(each), format!("{head}{chunk}0\r\n\r\n")).await;
            assert_eq!((read.status(), read.end.is_ok()), (400, true), "{chunk:?}");
        }
        ask(mode(Mode::Lazy), format!("{head}{chunk}0\r\n\r\n"))
            .await
            .assert_whole(614_400);
    }
    let read = ask(mode(Mode::Drain), format!("{head}3\r\nabc\r\n0\r\n\r\n")).await;
    read.assert_whole(614_400);
}

/// A blocking client that writes everything before it reads anything.
#[tokio::test]
async fn a_client_that_uploads_too_much_gets_the_whole_413() {
    let chunked = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n800000\r\n";
    for head in [post(8 * 1024 * 1024), chunked.to_owned()] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let client = std::thread::spawn(move || {
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(&vec![b'b'; 8 * 1024 * 1024]).unwrap();
            let mut bytes = Vec::new();
            let end = stream.read_to_end(&mut bytes).map(drop);
            Answer { bytes, end }
        });
        let (stream, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        let stream = tokio::net::TcpStream::from_std(stream).unwrap();
        let summary = soon(served(stream, mode(Mode::Cap))).await;

        let read = client.join().unwrap();
        assert_eq!((read.status(), read.end.is_ok()), (413, true));
        let length: usize = read.field("content-length").parse().unwrap();
        assert!(length > 0 && read.body().len() == length);
        assert_eq!(
            (summary.closed.unread_bytes, summary.closed.peer),
            (0, Peer::Closed)
        );
        let bytes = summary.body_bytes + summary.closed.lingered_bytes;
        assert!(bytes >= 8 * 1024 * 1024);
        assert!(
            summary.body_bytes < 2 * 1024 * 1024,
            "{}",
            summary.body_bytes
        );
    }
}

#[tokio::test]
async fn a_client_that_goes_away_ends_its_connection_only() {
    // Before a request, in its head, in its body.
    for (sent, status) in [
        (String::new(), None),
        ("GET / HT".to_owned(), None),
        (post(22) + "half", Some(400)),
    ] {
        let mut pair = Pair::new(mode(Mode::Drain)).await;
        pair.send(&sent).await;
        pair.client.shutdown().await.unwrap();
        let summary = pair.summary().await;
        let answered = summary.answer.map(|answer| answer.status);
        assert_eq!(answered, status, "{sent:?}");
    }
    // In the middle of the response: by a reset, since most of it lies unread.
    let mut pair = Pair::new(Config {
        response_bytes: LARGE,
        ..mode(Mode::Lazy)
    })
    .await;
    pair.send(post(22)).await;
    pair.answer_begins().await;
    pair.send(BODY).await;
    let summary = pair.summary().await;
    assert_eq!(summary.answer.unwrap().status, 200);
    // The client had reset the connection before the close could.
    assert_eq!(summary.closed.unread_bytes, 22);
    assert_eq!(summary.closed.peer, Peer::Reset);
}
