//! Serves one client's connection, and ends it in stages.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::header::{CONNECTION, HeaderValue};
use http::{Response, StatusCode};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rstlab_cli::Live;
use rstlab_wire::{ClientSlot, MAX_HEAD_BYTES, Stall, StopOrder, Tape, chain, close};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;

use crate::client_io::{ClientIo, ClientSignals};
use crate::config::ProxyConfig;
use crate::first_head::{FirstHead, first_head, ordered_to_close};
use crate::forward;
use crate::upstream::Shared;
use crate::watched_socket::WatchedSocket;

/// Limit of the time in which a client takes no byte of a response.
const SEND_LIMIT: Duration = Duration::from_secs(60);

/// Limit of the buffer for reading from a client. An upload that the upstream does not take costs two such buffers.
///
/// CPU time of the proxy for an upload of 1,000,000 bytes: 382 µs with 128 KiB, 360 with 60, 395 with 48. With 60 KiB, a
/// stalled upload holds 185 KiB.
const MAX_BUFFER_BYTES: usize = 48 * 1024;

/// The staged close after the last response: read on until the client closes, or for this long (RFC 9112 §9.6).
const LINGER: close::Bounds = close::Bounds {
    time: Duration::from_secs(5),
    bytes: None,
};

/// Limit of the time that a connection made before the order to stop may take to send its first request.
const FIRST_REQUEST: Duration = Duration::from_millis(500);

/// Serves one client until it leaves, the last response is out, or a limit is reached; then ends in stages.
pub(crate) async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    slot: Arc<ClientSlot>,
    config: Live<ProxyConfig>,
    shared: Arc<Shared>,
    stop: StopOrder,
) {
    let abandon = stop.abandon.clone();
    // Boxed: each future around it would have room for it twice.
    let served = Box::pin(wait_and_serve(stream, peer, slot, config, shared, stop));
    // The drop tells each exchange.
    abandon.run_until_cancelled(served).await;
}

async fn wait_and_serve(
    mut stream: TcpStream,
    peer: SocketAddr,
    slot: Arc<ClientSlot>,
    config: Live<ProxyConfig>,
    shared: Arc<Shared>,
    stop: StopOrder,
) {
    let head_limit = config.now().client_head_timeout;
    match first_head(&stream, head_limit, &slot, &stop.finish).await {
        // Boxed: a client that has not sent its head does not need the room yet.
        FirstHead::Came(head) => {
            Box::pin(serve(stream, head, peer, slot, config, shared, stop)).await;
        }
        FirstHead::TooSlow => {
            too_slow(&mut stream, peer, &config, &shared).await;
            close_in_stages(stream, &stop).await;
        }
        FirstHead::OrderedToClose => dismissed(peer),
    }
}

/// The connection of an idle client ends.
fn dismissed(peer: SocketAddr) {
    tracing::debug!(client = %peer, "idle connection closed: descriptors run short");
}

/// Serves a client whose first bytes are `head`.
async fn serve(
    stream: TcpStream,
    head: Vec<u8>,
    peer: SocketAddr,
    slot: Arc<ClientSlot>,
    config: Live<ProxyConfig>,
    shared: Arc<Shared>,
    stop: StopOrder,
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
            let stop = stop.finish.clone();
            move |response| last_response(stop.is_cancelled(), response)
        })
        .service_fn({
            let (config, shared) = (config.clone(), Arc::clone(&shared));
            let signals = Arc::clone(&signals);
            move |request| {
                forward::forward(
                    request,
                    config.now(),
                    Arc::clone(&shared),
                    Arc::clone(&signals),
                )
            }
        });
    let (socket, watch) = WatchedSocket::new(stream, signals.pipe.clone());
    let io = Stall::sending(socket, Some(SEND_LIMIT));
    let mut connection = http1::Builder::new()
        // A client may half-close after its request and still wants the response.
        .half_close(true)
        .max_header_size(MAX_HEAD_BYTES)
        .max_buf_size(MAX_BUFFER_BYTES)
        .timer(TokioTimer::new())
        .header_read_timeout(head_limit)
        .serve_connection(
            TokioIo::new(ClientIo::new(
                io,
                head,
                Arc::clone(&signals),
                Arc::clone(&slot),
            )),
            TowerToHyperService::new(service),
        );

    let mut done = false;
    let mut stopping = false;
    let mut first_request_until = None;
    // `None`: the client has left, or is to leave.
    let result = {
        let mut failed = pin!(watch.failed());
        let mut ordered_to_close = pin!(ordered_to_close(watch.as_ref(), &slot));
        loop {
            tokio::select! {
                biased;
                result = std::future::poll_fn(|cx| {
                    let result = Pin::new(&mut connection).poll(cx);
                    match signals.has_client_left() {
                        true => Poll::Ready(None),
                        false => result.map(Some),
                    }
                }) => {
                    // If a client offers an upgrade, hyper is done before it has written out its buffer
                    // (`Dispatcher::poll_inner`). Polled again, hyper has forgotten the upgrade and writes the rest.
                    if done || !matches!(result, Some(Ok(()))) {
                        break result;
                    }
                    done = true;
                }
                // hyper does not read while the upstream thinks, because a FIN would end a half-closed connection.
                () = &mut failed => break None,
                () = &mut ordered_to_close => {
                    dismissed(peer);
                    break None;
                }
                () = stop.finish.cancelled(), if !stopping => {
                    stopping = true;
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
        }
    };

    // This drops the request and the response, if there are any: their exchange ends too.
    let parts = connection.into_parts();
    let socket = parts.io.into_inner().into_inner();
    let (Some(result), Some(mut stream)) = (result, socket.into_stream(watch)) else {
        return;
    };
    if let Err(error) = result {
        let idle = parts.read_buf.is_empty() && signals.requests() > 0;
        if error.is_timeout() && !idle {
            too_slow(&mut stream, peer, &config, &shared).await;
        } else if error.is_parse() {
            // hyper has answered 400 or 431 to any bad head but that of HTTP/2.
            let status = match error.is_parse_too_large() {
                true => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                false => StatusCode::BAD_REQUEST,
            };
            shared.refused(peer, &config.now(), status, chain(&error));
            if error.is_parse_version_h2() {
                refuse(&mut stream, status).await;
            }
        } else {
            tracing::debug!(client = %peer, error = %chain(&error), "client connection ended");
        }
    }
    if signals.ends_with_reset() {
        close::abort_when_sent(stream, LINGER.time).await;
    } else {
        close_in_stages(stream, &stop).await;
    }
}

async fn close_in_stages(stream: TcpStream, stop: &StopOrder) {
    let linger = close::Policy::Linger(LINGER);
    close::close(stream, linger, &mut Tape::default(), &stop.abandon).await;
}

/// Tells the client if a response is the connection's last.
fn last_response<B>(stopping: bool, mut response: Response<B>) -> Response<B> {
    if stopping {
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Refuses a client whose head took too long.
async fn too_slow(
    stream: &mut TcpStream,
    peer: SocketAddr,
    config: &Live<ProxyConfig>,
    shared: &Shared,
) {
    let status = StatusCode::REQUEST_TIMEOUT;
    let why = "the request's head took too long".to_owned();
    shared.refused(peer, &config.now(), status, why);
    refuse(stream, status).await;
}

/// Sends the client the reason for the end of its connection; hyper sends none.
async fn refuse(stream: &mut TcpStream, status: StatusCode) {
    let answer = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    // Fails if the client is gone or takes nothing.
    let _ = timeout(LINGER.time, stream.write_all(answer.as_bytes())).await;
}
