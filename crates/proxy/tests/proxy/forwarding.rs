//! Requests reach the upstream as they should, and responses come back as they should.

use std::time::Duration;

use crate::log::Log;
use crate::support::{Proxy, config};
use rstlab_proxy::{ProxyConfig as Config, Writes};
use rstlab_tests::{Peer, PeerEnd, read_exactly, read_head, read_to_end, soon};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// An upstream that reads to the end of what the proxy sends, hands it to the test, and answers `response`.
async fn recording(end: &'static [u8], response: &'static [u8]) -> (Peer, mpsc::Receiver<String>) {
    let (sender, receiver) = mpsc::channel(16);
    let upstream = Peer::start(move |mut stream, _| {
        let sender = sender.clone();
        async move {
            let mut request = Vec::new();
            while !request.ends_with(end) {
                if stream.read_buf(&mut request).await.unwrap() == 0 {
                    break;
                }
            }
            sender
                .send(String::from_utf8(request).unwrap())
                .await
                .unwrap();
            stream.write_all(response).await.unwrap();
        }
    })
    .await;
    (upstream, receiver)
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn the_framing_stays_as_the_client_chose_it() {
    for writes in [Writes::Split, Writes::Joined] {
        let (upstream, mut requests) = recording(b"body", OK).await;
        let proxy = Proxy::start(Config {
            writes,
            ..config(&upstream)
        })
        .await;
        let answer = proxy
            .exchange(
                "POST /p HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody",
            )
            .await;
        assert_eq!(answer.status(), 200);
        let request = requests.recv().await.unwrap().to_lowercase();
        assert!(request.starts_with("post /p http/1.1\r\n"), "{request}");
        for field in [
            "host: h\r\n",
            "content-length: 4\r\n",
            "x-forwarded-for: 127.0.0.1\r\n",
            "via: 1.1 rstlab-proxy\r\n",
        ] {
            assert!(request.contains(field), "{field} is missing in {request}");
        }
        assert!(!request.contains("transfer-encoding"), "{request}");

        let (upstream, mut requests) = recording(b"\r\n\r\n", OK).await;
        let proxy = Proxy::start(Config {
            writes,
            ..config(&upstream)
        })
        .await;
        proxy
            .exchange("DELETE / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
            .await;
        let request = requests.recv().await.unwrap().to_lowercase();
        assert!(
            !request.contains("transfer-encoding") && !request.contains("content-length"),
            "{request}"
        );
    }
}

#[tokio::test]
async fn chunks_and_trailers_go_both_ways() {
    let (upstream, mut requests) = recording(
        b"x-sum: 7\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-check\r\n\r\n2\r\nok\r\n0\r\nx-check: 9\r\n\r\n",
    )
    .await;
    let proxy = Proxy::in_front_of(&upstream).await;
    let answer = proxy
        .exchange(
            "POST / HTTP/1.1\r\nHost: h\r\nTE: trailers\r\nConnection: close, TE\r\nTrailer: x-sum\r\n\
             Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n2\r\ncd\r\n0\r\nx-sum: 7\r\n\r\n",
        )
        .await;
    let request = requests.recv().await.unwrap();
    assert!(
        request.ends_with("4\r\nabcd\r\n0\r\nx-sum: 7\r\n\r\n"),
        "{request}"
    );
    assert!(
        answer
            .text()
            .ends_with("2\r\nok\r\n0\r\nx-check: 9\r\n\r\n"),
        "{}",
        answer.text()
    );
}

#[tokio::test]
async fn responses_without_a_body_end_at_their_head() {
    for (request, response) in [
        (
            "HEAD",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n".as_slice(),
        ),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n"),
    ] {
        let upstream = Peer::answering(response, PeerEnd::Close).await;
        let proxy = Proxy::in_front_of(&upstream).await;
        let answer = proxy
            .exchange(format!(
                "{request} / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
            ))
            .await;
        assert_eq!(answer.body(), b"");
        assert!(response.starts_with(&answer.bytes[..12]));
        if request == "HEAD" {
            assert!(
                answer
                    .text()
                    .to_lowercase()
                    .contains("content-length: 1000")
            );
        }
        let summary = proxy.stop().await;
        assert_eq!((summary.requests, summary.truncated), (1, 0));
    }
}

#[tokio::test]
async fn a_client_keeps_its_connection() {
    let upstream = Peer::answering(OK, PeerEnd::Close).await;
    let proxy = Proxy::in_front_of(&upstream).await;
    let mut client = proxy.connect().await;
    for _ in 0..3 {
        client
            .write_all(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody")
            .await
            .unwrap();
        let head = read_head(&mut client).await;
        assert!(!head.to_lowercase().contains("connection: close"), "{head}");
        assert_eq!(read_exactly(&mut client, 2).await, b"ok");
    }
    // HTTP/1.0 closes unless asked not to.
    let answer = proxy
        .exchange("POST / HTTP/1.0\r\nContent-Length: 4\r\n\r\nbody")
        .await;
    assert!(
        answer.text().starts_with("HTTP/1.0 200"),
        "{}",
        answer.text()
    );
    assert_eq!(answer.body(), b"ok");
}

#[tokio::test]
async fn a_request_that_comes_byte_by_byte_is_served_and_so_is_the_next() {
    let (upstream, mut requests) = recording(b"body", OK).await;
    let proxy = Proxy::in_front_of(&upstream).await;
    let mut client = proxy.connect().await;
    client.set_nodelay(true).unwrap();
    for _ in 0..2 {
        for byte in b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody" {
            client.write_all(&[*byte]).await.unwrap();
        }
        assert!(read_head(&mut client).await.starts_with("HTTP/1.1 200"));
        assert_eq!(read_exactly(&mut client, 2).await, b"ok");
        assert!(requests.recv().await.unwrap().ends_with("\r\n\r\nbody"));
    }
}

#[tokio::test]
async fn a_client_may_half_close_after_its_request() {
    let upstream = Peer::answering(OK, PeerEnd::Close).await;
    let proxy = Proxy::in_front_of(&upstream).await;
    let mut client = proxy.connect().await;
    client
        .write_all(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody")
        .await
        .unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut client).await.body(), b"ok");
}

#[tokio::test]
async fn a_client_that_expects_100_continue_gets_it_before_it_sends() {
    let upstream = Peer::answering(OK, PeerEnd::Close).await;
    let proxy = Proxy::in_front_of(&upstream).await;
    let mut client = proxy.connect().await;
    client
        .write_all(
            b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n",
        )
        .await
        .unwrap();
    assert_eq!(
        read_head(&mut client).await,
        "HTTP/1.1 100 Continue\r\n\r\n"
    );
    client.write_all(b"body").await.unwrap();
    assert!(read_head(&mut client).await.starts_with("HTTP/1.1 200"));
}

/// If a client offers an upgrade, hyper is done with the connection before its buffer is empty: a response that fits
/// into that buffer and not into the socket's would be cut.
#[tokio::test]
async fn a_client_that_offers_an_upgrade_gets_the_whole_response() {
    const LENGTH: usize = 100_000;
    let (sender, mut relayed) = mpsc::channel(1);
    let upstream = Peer::start(move |mut stream, _| {
        let sender = sender.clone();
        async move {
            let head = read_head(&mut stream).await.to_lowercase();
            assert!(!head.contains("upgrade"), "{head}");
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.write_all(&vec![b'x'; LENGTH]).await.unwrap();
            stream.shutdown().await.unwrap();
            // The proxy closes when it has handed the whole response to hyper.
            read_to_end(&mut stream).await;
            sender.send(()).await.unwrap();
        }
    })
    .await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let small = SockRef::from(&listener).set_send_buffer_size(4096);
    small.expect("accepted connections inherit it");
    let proxy = Proxy::on(listener, config(&upstream));
    // The second request announces a body and never sends it.
    for fields in [
        "Connection: Upgrade",
        "Connection: Upgrade\r\nContent-Length: 22",
    ] {
        let mut client = proxy.connect().await;
        let head = format!("POST / HTTP/1.1\r\nHost: h\r\nUpgrade: h2c\r\n{fields}\r\n\r\n");
        client.write_all(head.as_bytes()).await.unwrap();
        relayed.recv().await.unwrap();
        read_head(&mut client).await;
        read_exactly(&mut client, LENGTH).await;
    }
}

#[tokio::test]
async fn a_body_that_is_too_large_is_not_asked_for() {
    let upstream = Peer::answering(OK, PeerEnd::Close).await;
    let proxy = Proxy::in_front_of(&upstream).await;
    let answer = proxy
        .exchange(
            "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 1048577\r\n\r\n",
        )
        .await;
    assert_eq!(answer.status(), 413);
    let summary = proxy.stop().await;
    assert_eq!((summary.requests, summary.refused), (1, 1));
    assert_eq!(
        upstream.finish().await,
        0,
        "the upstream does not hear of it"
    );
}

#[tokio::test]
async fn an_upstream_that_is_not_there_is_a_502() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    for upstream in [address, "no-such-host.invalid:80".to_owned()] {
        let proxy = Proxy::start(Config {
            upstream,
            ..Config::default()
        })
        .await;
        let answer = proxy.exchange("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
        assert_eq!(answer.status(), 502);
        assert_eq!(proxy.stop().await.no_response, 1);
    }
}

#[tokio::test]
async fn an_upstream_that_says_nothing_is_a_504() {
    let mut log = Log::start();
    let upstream = Peer::silent().await;
    let proxy = Proxy::start(Config {
        read_timeout: Duration::from_millis(50),
        ..config(&upstream)
    })
    .await;
    for request in [
        "GET / HTTP/1.1\r\nHost: h\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody",
    ] {
        assert_eq!(proxy.exchange(request).await.status(), 504);
        let line = log.wait_for("the upstream took too long").await;
        assert!(line.contains("phase=waiting"), "{line}");
    }
}

#[tokio::test]
async fn more_than_100_interim_responses_are_a_502_and_end_the_connection() {
    let interim = "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n";
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    for (count, status) in [(100, 200), (101, 502)] {
        let upstream = Peer::start(move |mut stream, _| async move {
            read_head(&mut stream).await;
            let answer = interim.repeat(count) + ok;
            stream.write_all(answer.as_bytes()).await.unwrap();
            // A FIN, or a RST if the proxy left some of it unread.
            let _ = stream.read(&mut [0]).await;
        })
        .await;
        let proxy = Proxy::in_front_of(&upstream).await;
        let get = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        assert_eq!(proxy.exchange(get).await.status(), status, "{count}");
        assert_eq!(
            upstream.finish().await,
            1,
            "one connection, and it has ended"
        );
    }
}

#[tokio::test]
async fn a_response_that_stops_is_cut() {
    let upstream = Peer::start(|mut stream, _| async move {
        read_head(&mut stream).await;
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart")
            .await
            .unwrap();
        tokio::io::copy(&mut stream, &mut tokio::io::sink())
            .await
            .ok();
    })
    .await;
    let proxy = Proxy::start(Config {
        read_timeout: Duration::from_millis(50),
        ..config(&upstream)
    })
    .await;
    let answer = proxy.exchange("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert_eq!(answer.body(), b"part");
    assert_eq!(proxy.stop().await.truncated, 1);
}

#[tokio::test]
async fn an_upstream_that_takes_nothing_is_a_504() {
    let upstream = Peer::start(|stream, _| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let proxy = Proxy::start(Config {
        max_body: None,
        send_timeout: Duration::from_millis(50),
        ..config(&upstream)
    })
    .await;
    let mut client = proxy.connect().await;
    client
        .write_all(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000000\r\n\r\n")
        .await
        .unwrap();
    let (mut read, mut write) = client.split();
    let sending = async { while write.write_all(&[0; 65536]).await.is_ok() {} };
    let reading = async {
        let mut answer = vec![0; 12];
        soon(read.read_exact(&mut answer)).await.unwrap();
        answer
    };
    tokio::select! {
        () = sending => panic!("the proxy stopped reading"),
        answer = reading => assert_eq!(answer, b"HTTP/1.1 504"),
    }
}

#[tokio::test]
async fn health_is_answered_by_the_proxy_itself() {
    let proxy = Proxy::start(Config {
        upstream: "127.0.0.1:1".to_owned(),
        ..Config::default()
    })
    .await;
    let address = proxy.address.to_string();
    tokio::task::spawn_blocking(move || rstlab_cli::check_health(&address))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(proxy.stop().await.requests, 0);
}
