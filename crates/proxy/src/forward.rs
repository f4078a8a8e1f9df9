//! Turns a client's request into an exchange with the upstream, and the upstream's response into the client's.

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderValue};
use http::{Request, Response, StatusCode, Version};
use http_body::Body;
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use rstlab_wire::{RequestEnd, chain};
use scopeguard::ScopeGuard;
use tokio::sync::oneshot;

use crate::client_io::ClientSignals;
use crate::config::{ProxyConfig, Writes};
use crate::exchange::{Came, Exchange, Handed};
use crate::headers;
use crate::outgoing::Outgoing;
use crate::refuse::Refused;
use crate::relay::Relay;
use crate::trouble::Trouble;
use crate::upstream::{self, Shared};

type ProxyBody = Either<Relay<Incoming>, Full<Bytes>>;

/// Marks a response of [`forward`]; responses of the layers above it have no mark.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Handled;

/// Forwards one request, and answers with the upstream's response or with the reason why there is none.
pub(crate) async fn forward<B>(
    request: Request<B>,
    config: Arc<ProxyConfig>,
    shared: Arc<Shared>,
    signals: Arc<ClientSignals>,
) -> Result<Response<ProxyBody>, Infallible>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let mut response = respond(request, config, shared, signals).await;
    response.extensions_mut().insert(Handled);
    Ok(response)
}

async fn respond<B>(
    request: Request<B>,
    config: Arc<ProxyConfig>,
    shared: Arc<Shared>,
    signals: Arc<ClientSignals>,
) -> Response<ProxyBody>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let (mut head, body) = request.into_parts();
    let version = head.version;
    let client = signals.peer;
    if let Err(refused) = headers::forward_request(&mut head, client.ip(), &config) {
        return refusal(refused);
    }

    let number = shared.next_number();
    let begin = |reused| Exchange::new(number, &head, &config, reused, shared.dispatch.watch());
    let end = |exchange: Exchange, trouble, error: Option<&io::Error>| {
        let ended = exchange.not_connected(trouble, error);
        shared.dispatch.end(ended);
    };
    // hyper drops this future if the connection to the client fails meanwhile: then the exchange has ended too.
    let client_left = |exchange| end(exchange, Trouble::Client(StatusCode::BAD_REQUEST), None);
    let request_end = RequestEnd::default();
    let has_body = !body.is_end_stream();
    let mut body = Outgoing::new(body, request_end.clone(), config.client_body_timeout);
    if config.writes == Writes::Joined && has_body {
        let gathering = scopeguard::guard((), |()| client_left(begin(false)));
        let gathered = body.gathered().await;
        ScopeGuard::into_inner(gathering);
        if let Err(error) = gathered {
            let trouble = Trouble::of(&error);
            end(begin(false), trouble, None);
            return answer(trouble, client);
        }
    }

    let kept = shared.take_kept();
    let mut exchange = scopeguard::guard(begin(kept.is_some()), client_left);
    let connected = match kept {
        Some(kept) => Ok(kept),
        None => upstream::connect(&config, &mut exchange.watch.tape).await,
    };
    let mut exchange = ScopeGuard::into_inner(exchange);
    let (stream, connection) = match connected {
        Ok(connected) => connected,
        Err(error) => {
            let trouble = match error.kind() {
                io::ErrorKind::TimedOut => Trouble::TimedOut,
                _ => Trouble::Unreachable,
            };
            end(exchange, trouble, Some(&error));
            return answer(trouble, client);
        }
    };
    exchange.connection = connection;
    let (driver, handed) = oneshot::channel();
    let response = upstream::send(
        Request::from_parts(head, body),
        stream,
        exchange,
        &config,
        shared,
        handed,
    );
    match response.await {
        Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
            // No client asked for it: Upgrade is not forwarded.
            fail(Trouble::Malformed, client, driver)
        }
        Ok(mut response) => {
            if headers::forward_response(response.headers_mut()).is_err() {
                return fail(Trouble::Malformed, client, driver);
            }
            let early = !request_end.is_reached();
            let mut response =
                response.map(|body| Either::Left(Relay::new(body, version, signals, driver)));
            // The proxy's version, not the upstream's (RFC 9110 §2.5): an HTTP/1.1 client gets chunks from an HTTP/1.0
            // upstream too. hyper speaks HTTP/1.0 to a client that does.
            *response.version_mut() = Version::HTTP_11;
            let ends_by_closing =
                version == Version::HTTP_10 && response.body().size_hint().exact().is_none();
            if early || ends_by_closing {
                // The rest of the request will not be read as a request (RFC 9112 §9.3, §9.6), or the end of the
                // connection is the end of the response.
                response
                    .headers_mut()
                    .insert(CONNECTION, HeaderValue::from_static("close"));
            }
            response
        }
        Err(error) => {
            tracing::debug!(request = number, error = %chain(&error), "no response");
            fail(Trouble::of(&error), client, driver)
        }
    }
}

/// Tells the driver that no response will come, and the client why.
fn fail(
    trouble: Trouble,
    client: SocketAddr,
    driver: oneshot::Sender<Handed>,
) -> Response<ProxyBody> {
    // Fails only if the proxy ends and has dropped the driver.
    let _ = driver.send(Handed {
        came: Came::failed(trouble),
        body_bytes: 0,
        expected_bytes: None,
    });
    answer(trouble, client)
}

/// An answer of the proxy's own. It is the last on its connection, because some of the request may be unread.
fn answer(trouble: Trouble, client: SocketAddr) -> Response<ProxyBody> {
    if let Trouble::Client(status) = trouble {
        tracing::info!(%client, "{}: {}", status.as_u16(), trouble.text());
    }
    closing(text_response(trouble.status(), trouble.text()))
}

fn refusal(refused: Refused) -> Response<ProxyBody> {
    match refused {
        Refused::Malformed(why) => closing(text_response(StatusCode::BAD_REQUEST, why)),
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

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;
    use http_body::Frame;
    use http_body_util::StreamBody;
    use rstlab_wire::close;
    use rstlab_witness::{Dispatch, Summary, Takers, Witness};
    use tokio::net::{TcpListener, TcpStream};
    use tokio_util::task::TaskTracker;

    use crate::exchange::tests::finished;
    use crate::pool::Pool;

    fn shared(takers: &Takers) -> Arc<Shared> {
        let dispatch = Dispatch::new(Witness::default(), takers.clone());
        let pool = Some(Pool::default());
        Arc::new(Shared::new(dispatch, TaskTracker::new(), 1, pool))
    }

    /// hyper drops the exchange while its body is gathered, or while the proxy connects.
    #[tokio::test]
    async fn an_exchange_that_is_dropped_before_it_is_connected_is_counted_once() {
        for writes in [Writes::Joined, Writes::Split] {
            let config = ProxyConfig {
                writes,
                // The name takes a thread to resolve: connecting waits.
                upstream: "localhost:1".to_owned(),
                ..ProxyConfig::default()
            };
            let silent = futures_util::stream::pending::<Result<Frame<Bytes>, Infallible>>();
            let mut request = Request::post("/").header("host", "x");
            request = request.header("transfer-encoding", "chunked");
            let request = request.body(StreamBody::new(silent)).unwrap();
            let takers = Takers::default();
            let signals = Arc::new(ClientSignals::new(([127, 0, 0, 1], 9).into()));
            let forwarding = forward(request, Arc::new(config), shared(&takers), signals);
            assert!(forwarding.now_or_never().is_none(), "it waits");
            let expected = Summary {
                requests: 1,
                ..Summary::default()
            };
            assert_eq!(takers.totals().summary(), expected, "{writes}");
        }
    }

    /// A socket that has met a RST does not tell its peer's address any more.
    #[tokio::test]
    async fn a_reset_connection_has_its_two_ends() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = ProxyConfig {
            upstream: listener.local_addr().unwrap().to_string(),
            ..ProxyConfig::default()
        };
        let tape = &mut rstlab_wire::Tape::default();
        let (stream, ends) = upstream::connect(&config, tape).await.unwrap();
        assert!(ends.is_some());
        let shared = shared(&Takers::default());
        let mut finished = finished();
        finished.exchange.connection = ends;
        shared.keep(shared.pool.as_ref().unwrap(), stream, finished);
        let (server, _): (TcpStream, _) = listener.accept().await.unwrap();
        let (stream, kept) = shared.take_kept().unwrap();
        close::abort(server);
        assert!(stream.peer_addr().is_err());
        assert_eq!(kept, ends);
    }
}
