//! Upstream connections are kept for later requests, leave the pool at their end, and may lose the keep-alive race.

use std::io;
use std::num::NonZeroUsize;
use std::time::Duration;

use crate::log::Log;
use crate::support::Proxy;
use futures_util::future::join_all;
use rstlab_proxy::ProxyConfig as Config;
use rstlab_tests::{Answer, read_exactly, read_head, read_to_end, soon, until_unread};
use rstlab_wire::{Tape, close, queues};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

const GET: &str = "GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
const POST: &str =
    "POST /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const KEPT: &str = "upstream connection kept";

/// A proxy that keeps upstream connections, and the test as its upstream.
struct Scene {
    proxy: Proxy,
    listener: TcpListener,
}

impl Scene {
    async fn start() -> Self {
        Self::with(Duration::ZERO).await
    }

    async fn with(gap: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Proxy::start(Config {
            upstream: listener.local_addr().unwrap().to_string(),
            upstream_keepalive: true,
            // Each worker has its own pool.
            workers: NonZeroUsize::MIN,
            gap,
            ..Config::default()
        })
        .await;
        Self { proxy, listener }
    }

    /// The next upstream connection.
    async fn accept(&self) -> TcpStream {
        soon(self.listener.accept()).await.unwrap().0
    }

    /// Sends a request, which the next upstream connection answers with `response`.
    async fn on_a_fresh_one(&self, response: &[u8]) -> TcpStream {
        let (answer, upstream) = tokio::join!(self.proxy.exchange(GET), async {
            let mut upstream = self.accept().await;
            read_head(&mut upstream).await;
            upstream.write_all(response).await.unwrap();
            upstream
        });
        assert_eq!(answer.status(), 200);
        upstream
    }

    /// An upstream connection that has carried a request and is kept.
    async fn kept(&self, log: &mut Log) -> TcpStream {
        let upstream = self.on_a_fresh_one(OK).await;
        log.wait_for(KEPT).await;
        upstream
    }

    /// Whether a connection waits to be accepted; the scene is over.
    fn has_connected_again(self) -> bool {
        let listener = self.listener.into_std().unwrap();
        match listener.accept() {
            Ok(_) => true,
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                false
            }
        }
    }
}

/// Waits for the proxy's FIN, and for nothing else.
async fn closed_by_proxy(mut upstream: TcpStream) {
    let Answer { bytes, end } = read_to_end(&mut upstream).await;
    end.expect("a FIN, no RST");
    assert_eq!(String::from_utf8(bytes).unwrap(), "");
}

#[tokio::test]
async fn requests_share_a_kept_connection() {
    let mut log = Log::start();
    let scene = Scene::start().await;
    let mut upstream = scene.kept(&mut log).await;
    for _ in 0..3 {
        let (answer, ()) = tokio::join!(scene.proxy.exchange(POST), async {
            let head = read_head(&mut upstream).await.to_lowercase();
            assert!(head.starts_with("post /a http/1.1\r\n"), "{head}");
            assert!(!head.contains("connection:"), "{head}");
            assert_eq!(read_exactly(&mut upstream, 4).await, b"body");
            let response =
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
            upstream.write_all(response).await.unwrap();
        });
        assert_eq!(
            (answer.status(), answer.body()),
            (200, &b"2\r\nok\r\n0\r\n\r\n"[..])
        );
        log.wait_for(KEPT).await;
    }
    assert!(!scene.has_connected_again());
}

#[tokio::test]
async fn head_and_body_of_the_second_request_are_apart_too() {
    let mut log = Log::start();
    let scene = Scene::with(Duration::from_secs(3600)).await;
    // A request without a body has no pause, and is answered.
    let mut upstream = scene.kept(&mut log).await;
    tokio::select! {
        answer = scene.proxy.exchange(POST) => panic!("{answer:?}"),
        head = read_head(&mut upstream) => assert!(head.contains("content-length: 4"), "{head}"),
    }
    assert_eq!(queues::unread(&upstream).unwrap(), 0, "the body waits");
}

/// The race: the upstream closes while the request is on its way.
#[tokio::test]
async fn a_request_that_meets_a_reset_is_a_502_and_is_not_sent_again() {
    let mut log = Log::start();
    for request in [GET, POST] {
        let scene = Scene::start().await;
        let mut upstream = scene.kept(&mut log).await;
        let (answer, ()) = tokio::join!(scene.proxy.exchange(request), async {
            read_head(&mut upstream).await;
            // The whole request is out: the proxy waits.
            if request == POST {
                until_unread(&upstream, 4).await;
            }
            close::abort(upstream);
        });
        assert_eq!(answer.status(), 502);
        let line = log.wait_for("recv() failed").await;
        for part in [
            "recv() failed (104: Connection reset by peer) while reading upstream request=2",
            "phase=waiting reused=true",
            "harm=no-response",
        ] {
            assert!(line.contains(part), "{part} is missing in {line}");
        }
        let Scene {
            proxy, listener, ..
        } = scene;
        let summary = proxy.stop().await;
        assert_eq!((summary.requests, summary.resets), (2, 1));
        assert_eq!((summary.no_response, summary.harmless), (1, 0));
        let accepted = listener.into_std().unwrap().accept();
        assert_eq!(accepted.unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}

#[tokio::test]
async fn a_request_that_meets_a_fin_is_a_502_and_is_not_sent_again() {
    let mut log = Log::start();
    let scene = Scene::start().await;
    let mut upstream = scene.kept(&mut log).await;
    let (answer, ()) = tokio::join!(scene.proxy.exchange(GET), async {
        read_head(&mut upstream).await;
        drop(upstream);
    });
    assert_eq!(answer.status(), 502);
    let line = log.wait_for("closed the connection too early").await;
    assert!(line.contains("phase=waiting reused=true"), "{line}");
    assert!(!scene.has_connected_again());
}

#[tokio::test]
async fn a_connection_that_does_not_persist_is_not_kept() {
    const POST_UNFINISHED: &str = "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nbody";
    let cases: [(&str, &[u8]); 6] = [
        (
            GET,
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
        ),
        (GET, b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        (
            GET,
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok and more",
        ),
        (POST_UNFINISHED, OK),
        // One is cut, one ends with the connection: the FIN comes at once.
        (GET, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no"),
        (GET, b"HTTP/1.1 200 OK\r\n\r\nok"),
    ];
    join_all(cases.map(|(request, response)| async move {
        let scene = Scene::start().await;
        let mut client = scene.proxy.connect().await;
        client.write_all(request.as_bytes()).await.unwrap();
        let mut upstream = scene.accept().await;
        read_head(&mut upstream).await;
        upstream.write_all(response).await.unwrap();
        if !response.ends_with(b"ok") || !response.contains(&b':') {
            upstream.shutdown().await.unwrap();
        }
        read_head(&mut client).await;
        // The proxy closes after the bytes of its request.
        read_to_end(&mut upstream).await.end.unwrap();
        scene.on_a_fresh_one(OK).await;
    }))
    .await;
}

/// A body that comes later would be the answer to the next request.
#[tokio::test]
async fn a_connection_that_answered_a_head_is_not_kept() {
    let scene = Scene::start().await;
    let head = GET.replacen("GET", "HEAD", 1);
    let (answer, upstream) = tokio::join!(scene.proxy.exchange(head), async {
        let mut upstream = scene.accept().await;
        read_head(&mut upstream).await;
        upstream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 36\r\n\r\n")
            .await
            .unwrap();
        upstream
    });
    assert_eq!((answer.status(), answer.body()), (200, &b""[..]));
    scene.on_a_fresh_one(OK).await;
    closed_by_proxy(upstream).await;
}

#[tokio::test]
async fn a_fin_takes_an_idle_connection_out_of_the_pool() {
    let mut log = Log::start();
    let scene = Scene::start().await;
    let mut upstream = scene.kept(&mut log).await;
    upstream.shutdown().await.unwrap();
    closed_by_proxy(upstream).await;
    scene.on_a_fresh_one(OK).await;
    let summary = scene.proxy.stop().await;
    assert_eq!((summary.resets, summary.no_response), (0, 0));
}

#[tokio::test]
async fn a_reset_of_an_idle_connection_does_no_harm_and_is_told_once() {
    let mut log = Log::start();
    let scene = Scene::start().await;
    let upstream = scene.kept(&mut log).await;
    close::abort(upstream);
    let line = log.wait_for("recv() failed").await;
    for part in ["request=1", "phase=after-response", "harm=none"] {
        assert!(line.contains(part), "{part} is missing in {line}");
    }
    assert!(!line.contains("reused"), "{line}");
    scene.on_a_fresh_one(OK).await;
    let summary = scene.proxy.stop().await;
    assert_eq!((summary.resets, summary.harmless), (1, 1));
}

#[tokio::test]
async fn bytes_that_nobody_asked_for_take_an_idle_connection_out_of_the_pool() {
    let mut log = Log::start();
    let scene = Scene::start().await;
    let mut upstream = scene.kept(&mut log).await;
    upstream
        .write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
        .await
        .unwrap();
    log.wait_for("given up").await;
    upstream.shutdown().await.unwrap();
    // The bytes were read, so that the close is no RST.
    closed_by_proxy(upstream).await;
    scene.on_a_fresh_one(OK).await;
}

#[tokio::test]
async fn at_most_32_connections_are_idle_and_the_order_to_stop_closes_them() {
    let mut log = Log::start();
    let scene = Scene::start().await;
    let clients = (0..40).map(|_| scene.proxy.exchange(GET));
    let upstreams = async {
        let mut upstreams = Vec::new();
        for _ in 0..40 {
            let mut upstream = scene.accept().await;
            read_head(&mut upstream).await;
            upstreams.push(upstream);
        }
        for upstream in &mut upstreams {
            upstream.write_all(OK).await.unwrap();
        }
        upstreams
    };
    let (_, upstreams) = tokio::join!(join_all(clients), upstreams);
    for _ in 0..8 {
        log.wait_for("closed: too many are idle").await;
    }
    let states = upstreams
        .iter()
        .map(|upstream| close::look(upstream, &mut Tape::default()).peer);
    let open = states.filter(|peer| *peer == close::Peer::Open).count();
    assert_eq!(open, 32);

    let summary = scene.proxy.stop().await;
    assert_eq!((summary.requests, summary.resets), (40, 0));
    join_all(upstreams.into_iter().map(closed_by_proxy)).await;
}

#[tokio::test]
async fn after_the_order_to_stop_no_connection_is_kept() {
    let mut log = Log::start();
    let scene = Scene::start().await;
    let idle = scene.kept(&mut log).await;
    let (answer, upstream) = tokio::join!(scene.proxy.exchange(GET), async {
        // The idle one is taken.
        let mut upstream = idle;
        read_head(&mut upstream).await;
        scene.proxy.begin_stop();
        while TcpStream::connect(scene.proxy.address).await.is_ok() {}
        upstream.write_all(OK).await.unwrap();
        upstream
    });
    assert_eq!(answer.status(), 200);
    closed_by_proxy(upstream).await;
    scene.proxy.stop().await;
}

#[tokio::test]
async fn by_default_no_connection_is_kept() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::start(Config {
        upstream: listener.local_addr().unwrap().to_string(),
        ..Config::default()
    })
    .await;
    let scene = Scene { proxy, listener };
    let upstream = scene.on_a_fresh_one(OK).await;
    closed_by_proxy(upstream).await;
    scene.on_a_fresh_one(OK).await;
}
