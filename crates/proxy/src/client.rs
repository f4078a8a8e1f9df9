//! Serves one client's connection, and ends it in stages.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONNECTION, HeaderValue};
use http::{Response, StatusCode};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rstlab_cli::Live;
use rstlab_wire::{MAX_HEAD_BYTES, Stall, Tape, chain, close};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tower::{Layer as _, ServiceBuilder, ServiceExt as _, service_fn};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::limit::RequestBodyLimitLayer;

use crate::client_io::{ClientIo, ClientSignals};
use crate::config::ProxyConfig;
use crate::first_head::first_head;
use crate::forward::{self, Handled};
use crate::upstream::Shared;

/// Limit of the time in which a client takes no byte of a response.
const SEND_LIMIT: Duration = Duration::from_secs(60);

/// Limit of the buffer for reading from a client, and of the response's bytes behind which no further piece is queued.
/// Less than one piece of a response, so that no second one waits behind it; an upload costs as much CPU time as with
/// twice as much.
const MAX_BUFFER_BYTES: usize = 60 * 1024;

/// The staged close after the last response: read on until the client closes, or for this long (RFC 9112 §9.6).
const LINGER: close::Bounds = close::Bounds {
    time: Duration::from_secs(5),
    bytes: None,
};

/// Limit of the time that a connection made before the order to stop may take to send its first request.
const FIRST_REQUEST: Duration = Duration::from_millis(500);

/// Serves one client until it leaves, the last response is out, or a limit is reached; then ends in stages.
pub(crate) async fn connection(
    mut stream: TcpStream,
    peer: SocketAddr,
    config: Live<ProxyConfig>,
    shared: Arc<Shared>,
    stop: CancellationToken,
) {
    // Fails only on a connection that is gone; the next read tells.
    let _ = stream.set_nodelay(true);
    let head_limit = config.now().client_head_timeout;
    match first_head(&stream, head_limit, &stop).await {
        // Boxed: a client that has not sent its head does not need the room yet.
        Some(head) => Box::pin(serve(stream, head, peer, config, shared, stop)).await,
        None => {
            too_slow(&mut stream, peer).await;
            close::close(stream, close::Policy::Linger(LINGER), &mut Tape::default()).await;
        }
    }
}

/// Serves a client whose first bytes are `head`.
async fn serve(
    stream: TcpStream,
    head: Vec<u8>,
    peer: SocketAddr,
    config: Live<ProxyConfig>,
    shared: Arc<Shared>,
    stop: CancellationToken,
) {
    let signals = Arc::new(ClientSignals::new(peer));
    let head_limit = config.now().client_head_timeout;
    let service = ServiceBuilder::new()
        .layer(CatchPanicLayer::new())
        .map_request({
            let signals = Arc::clone(&signals);
            move |request| {
                signals.request();
                request
            }
        })
        .map_response({
            let signals = Arc::clone(&signals);
            move |response| last_response(&signals, response)
        })
        .service_fn({
            let signals = Arc::clone(&signals);
            move |request| {
                let config = config.now();
                let limit = config.max_body.map_or(usize::MAX, |bytes| {
                    usize::try_from(bytes).unwrap_or(usize::MAX)
                });
                let (shared, signals) = (Arc::clone(&shared), Arc::clone(&signals));
                let forward = service_fn(move |request| {
                    forward::forward(
                        request,
                        Arc::clone(&config),
                        Arc::clone(&shared),
                        Arc::clone(&signals),
                    )
                });
                RequestBodyLimitLayer::new(limit)
                    .layer(forward)
                    .oneshot(request)
            }
        });
    let io = Stall::sending(stream, Some(SEND_LIMIT));
    let mut connection = http1::Builder::new()
        // A client may half-close after its request and still wants the response.
        .half_close(true)
        .max_header_size(MAX_HEAD_BYTES)
        .max_buf_size(MAX_BUFFER_BYTES)
        .timer(TokioTimer::new())
        .header_read_timeout(head_limit)
        .serve_connection(
            TokioIo::new(ClientIo::new(io, head, Arc::clone(&signals))),
            TowerToHyperService::new(service),
        );

    let mut done = false;
    let mut stopping = false;
    let mut first_request_until = None;
    let result = loop {
        tokio::select! {
            biased;
            result = std::future::poll_fn(|cx| Pin::new(&mut connection).poll(cx)) => {
                // If a client offers an upgrade, hyper is done before it has written out its buffer
                // (`Dispatcher::poll_inner`). Polled again, hyper has forgotten the upgrade and writes the rest.
                if done || result.is_err() {
                    break result;
                }
                done = true;
            }
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                signals.stop();
                if signals.requests() == 0 {
                    first_request_until = Some(Instant::now() + FIRST_REQUEST);
                } else {
                    Pin::new(&mut connection).graceful_shutdown();
                }
            }
            () = sleep_until(first_request_until.unwrap_or_else(Instant::now)),
                if first_request_until.is_some() =>
            {
                first_request_until = None;
                if signals.requests() == 0 {
                    Pin::new(&mut connection).graceful_shutdown();
                }
            }
        }
    };

    let parts = connection.into_parts();
    let mut stream = parts.io.into_inner().into_inner();
    if let Err(error) = result {
        let idle = parts.read_buf.is_empty() && signals.requests() > 0;
        if error.is_timeout() && !idle {
            too_slow(&mut stream, peer).await;
        } else if error.is_parse() {
            tracing::info!(client = %peer, "refused: {}", chain(&error));
            // hyper has answered 400 or 431 to any other bad head.
            if error.is_parse_version_h2() {
                refuse(&mut stream, "400 Bad Request").await;
            }
        } else {
            tracing::debug!(client = %peer, error = %chain(&error), "client connection ended");
        }
    }
    if signals.ends_with_reset() {
        close::abort_when_sent(stream, LINGER.time).await;
    } else {
        close::close(stream, close::Policy::Linger(LINGER), &mut Tape::default()).await;
    }
}

/// Tells the client if a response is the connection's last.
fn last_response<B>(signals: &ClientSignals, mut response: Response<B>) -> Response<B> {
    // The layer that limits the body answers by itself, and leaves the body unread.
    let over_limit = response.extensions_mut().remove::<Handled>().is_none()
        && response.status() == StatusCode::PAYLOAD_TOO_LARGE;
    if over_limit {
        tracing::info!(client = %signals.peer, "413: the request's body is too large");
    }
    if signals.is_stopping() || over_limit {
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Tells a client whose head took too long.
async fn too_slow(stream: &mut TcpStream, peer: SocketAddr) {
    tracing::info!(client = %peer, "408: the request's head took too long");
    refuse(stream, "408 Request Timeout").await;
}

/// Sends the client the reason for the end of its connection; hyper sends none.
async fn refuse(stream: &mut TcpStream, status: &str) {
    let answer = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    // Fails if the client is gone or takes nothing.
    let _ = timeout(LINGER.time, stream.write_all(answer.as_bytes())).await;
}
