use std::convert::Infallible;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderValue};
use http::{Request, Response, StatusCode, Version};
use http_body::Body;
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use rstlab_wire::{Seen, chain};
use tokio::sync::oneshot;

use crate::case;
use crate::client_io::Link;
use crate::config::Writes;
use crate::headers::{self, Refused};
use crate::outgoing::Outgoing;
use crate::relay::Relay;
use crate::report::{Exchange, Outcome};
use crate::trouble::Trouble;
use crate::upstream::{self, Shared};

type ProxyBody = Either<Relay<Incoming>, Full<Bytes>>;

/// Marks a response as one of [`forward`]'s; those of the layers above it don't have it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Handled;

/// Forwards one request, and answers with the upstream's response or with the reason why there is none.
pub(crate) async fn forward<B>(
    request: Request<B>,
    shared: Arc<Shared>,
    link: Arc<Link>,
) -> Result<Response<ProxyBody>, Infallible>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let mut response = respond(request, shared, link).await;
    response.extensions_mut().insert(Handled);
    Ok(response)
}

async fn respond<B>(
    request: Request<B>,
    shared: Arc<Shared>,
    link: Arc<Link>,
) -> Response<ProxyBody>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let (mut head, body) = request.into_parts();
    let version = head.version;
    let client = link.peer;
    let config = &shared.config;
    if let Err(refused) = headers::forward_request(&mut head, link.peer.ip(), config) {
        return refusal(refused);
    }

    let request = shared.stats.request();
    let seen = Seen::default();
    let has_body = !body.is_end_stream();
    let mut body = Outgoing::new(body, seen.clone(), config.client_body_timeout);
    if config.writes == Writes::Joined
        && has_body
        && let Err(error) = body.gathered().await
    {
        return answer(Trouble::of(&error), client);
    }

    let kept = shared.take_kept();
    let exchange = Arc::new(Exchange {
        request,
        method: head.method.clone(),
        path: head.uri.path().to_owned(),
        upstream: config.upstream.clone(),
        reused: kept.is_some(),
        seen,
        watch: shared.witness.watch(),
        ends: OnceLock::new(),
        ended: OnceLock::new(),
        upstream_bytes: AtomicU64::new(0),
        expected_bytes: OnceLock::new(),
    });
    let connected = match kept {
        Some(stream) => Ok(stream),
        None => upstream::connect(config, &exchange.watch.tape).await,
    };
    let stream = match connected {
        Ok(stream) => stream,
        Err(error) => {
            let trouble = match error.kind() {
                std::io::ErrorKind::TimedOut => Trouble::TimedOut,
                _ => Trouble::Unreachable,
            };
            exchange.not_connected(&error, trouble, &shared.stats);
            return answer(trouble, client);
        }
    };

    if let Some(ends) = case::ends(&stream) {
        // Set nowhere else.
        let _ = exchange.ends.set(ends);
    }
    let (outcome, told) = oneshot::channel();
    let request = Request::from_parts(head, body);
    let response = upstream::send(
        request,
        has_body,
        stream,
        Arc::clone(&exchange),
        shared,
        told,
    );
    match response.await {
        Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
            // Nobody asked for it: Upgrade is not forwarded.
            fail(Trouble::Malformed, client, outcome)
        }
        Ok(mut response) => {
            if headers::forward_response(response.headers_mut()).is_err() {
                return fail(Trouble::Malformed, client, outcome);
            }
            let early = !exchange.seen.is_request_whole();
            let mut response = response
                .map(|body| Either::Left(Relay::new(body, version, exchange, link, outcome)));
            // Ours, not the upstream's (RFC 9110 §2.5): an HTTP/1.0 upstream must not keep us from sending
            // chunks to an HTTP/1.1 client. hyper speaks HTTP/1.0 to a client that does.
            *response.version_mut() = Version::HTTP_11;
            let ends_by_closing =
                version == Version::HTTP_10 && response.body().size_hint().exact().is_none();
            if early || ends_by_closing {
                // The rest of the request will not be read as one (RFC 9112 §9.3, §9.6), or the end of the
                // connection is the end of the response.
                response
                    .headers_mut()
                    .insert(CONNECTION, HeaderValue::from_static("close"));
            }
            response
        }
        Err(error) => {
            tracing::debug!(request = exchange.request, error = %chain(&error), "no response");
            fail(Trouble::of(&error), client, outcome)
        }
    }
}

/// Tells the driver that no response will come, and the client why.
fn fail(
    trouble: Trouble,
    client: SocketAddr,
    outcome: oneshot::Sender<Outcome>,
) -> Response<ProxyBody> {
    let ended = match trouble {
        Trouble::Client(_) => Outcome::Client,
        trouble => Outcome::NoResponse(trouble),
    };
    // The driver waits for it; if it is gone, so is the proxy.
    let _ = outcome.send(ended);
    answer(trouble, client)
}

/// An answer of the proxy's own. It is the last on its connection: some of the request may be unread.
fn answer(trouble: Trouble, client: SocketAddr) -> Response<ProxyBody> {
    if let Trouble::Client(status) = trouble {
        tracing::info!(%client, "{}: {}", status.as_u16(), trouble.text());
    }
    closing(text_response(trouble.status(), trouble.text()))
}

fn refusal(refused: Refused) -> Response<ProxyBody> {
    match refused {
        Refused::Malformed => closing(text_response(
            StatusCode::BAD_REQUEST,
            "the request needs one Host field and a path",
        )),
        Refused::NotImplemented => closing(text_response(
            StatusCode::NOT_IMPLEMENTED,
            "this method or transfer coding is not forwarded",
        )),
        Refused::ForTheProxy => {
            let mut response = Response::new(Either::Right(Full::default()));
            *response.status_mut() = StatusCode::NO_CONTENT;
            response
        }
    }
}

fn text_response(status: StatusCode, text: &'static str) -> Response<ProxyBody> {
    let body = Bytes::from(format!("{status}: {text}\n"));
    let mut response = Response::new(Either::Right(Full::new(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}

fn closing<B>(mut response: Response<B>) -> Response<B> {
    response
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
    response
}
