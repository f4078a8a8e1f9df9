//! Turns a client's request into an exchange with the upstream, and the upstream's response into the client's.

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use http::{Request, Response, StatusCode, Version};
use http_body::Body;
use http_body_util::{Either, Full, Limited};
use rstlab_wire::{RequestEnd, chain};
use rustix::io::Errno;
use scopeguard::ScopeGuard;
use tokio::sync::oneshot;

use crate::client_io::ClientSignals;
use crate::config::{ProxyConfig, Writes};
use crate::exchange::{Came, Exchange, Handed};
use crate::headers;
use crate::outgoing::Outgoing;
use crate::refuse::Refused;
use crate::relay::Relay;
use crate::response_body::ResponseBody;
use crate::trouble::Trouble;
use crate::upstream::{self, FromClient, Shared};

type ProxyBody = Either<Relay<ResponseBody>, Full<Bytes>>;

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
    Ok(respond(request, config, shared, signals).await)
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
    let number = shared.next_number();
    let begin = |head: &Parts, reused| {
        let asked = format!("{} {}", head.method, head.uri.path());
        let watch = shared.dispatch.watch();
        Exchange::new(number, signals.peer, Some(asked), &config, reused, watch)
    };
    let end = |exchange: Exchange, came, error: Option<&io::Error>| {
        let ended = exchange.not_connected(came, error);
        shared.dispatch.end(ended);
    };
    let limit = config
        .max_body
        .and_then(|bytes| usize::try_from(bytes).ok());
    let limit = limit.unwrap_or(usize::MAX);
    if body.size_hint().lower() > limit as u64 {
        let trouble = Trouble::Client(StatusCode::PAYLOAD_TOO_LARGE);
        end(begin(&head, false), Came::failed(trouble), None);
        return answer(trouble);
    }
    if let Err(refused) = headers::forward_request(&mut head, signals.peer.ip(), &config) {
        let Some((status, why)) = refusal(refused) else {
            return for_the_proxy();
        };
        let refused = begin(&head, false).refused(status, why.to_owned());
        shared.dispatch.end(refused);
        return closing(text_response(status, why));
    }

    // This future is dropped if the connection to the client fails meanwhile: then the exchange has ended too.
    let dropped = |exchange| end(exchange, shared.gone(), None);
    let request_end = RequestEnd::default();
    let has_body = !body.is_end_stream();
    let body = Limited::new(body, limit);
    let mut body = Outgoing::new(
        body,
        request_end.clone(),
        config.client_body_timeout,
        Arc::clone(&signals),
    );
    if config.writes == Writes::Joined && has_body {
        let gathering = scopeguard::guard((), |()| dropped(begin(&head, false)));
        let gathered = body.gathered().await;
        ScopeGuard::into_inner(gathering);
        if let Err(error) = gathered {
            let trouble = Trouble::of(&error);
            end(begin(&head, false), Came::failed(trouble), None);
            return answer_or_leave(trouble, &signals).await;
        }
    }

    let kept = shared.take_kept();
    let mut exchange = scopeguard::guard(begin(&head, kept.is_some()), dropped);
    let connected = match kept {
        Some((stream, slot, ends)) => {
            exchange.slot = slot;
            Ok((stream, ends))
        }
        None => match shared.slots.other(config.connect_timeout).await {
            Some(slot) => {
                exchange.slot = Some(slot);
                upstream::connect(&config, &mut exchange.watch.tape).await
            }
            None => Err(Errno::MFILE.into()),
        },
    };
    let mut exchange = ScopeGuard::into_inner(exchange);
    let (stream, server) = match connected {
        Ok(connected) => connected,
        Err(error) => {
            let trouble = match error.kind() {
                io::ErrorKind::TimedOut => Trouble::TimedOut,
                _ if error.raw_os_error() == Some(Errno::MFILE.raw_os_error()) => Trouble::Short,
                _ => Trouble::Unreachable,
            };
            end(exchange, Came::failed(trouble), Some(&error));
            return answer(trouble);
        }
    };
    exchange.server = Some(server);
    let (driver, handed) = oneshot::channel();
    let (borrow, borrows) = config.splice.then(oneshot::channel).unzip();
    let response = upstream::send(
        Request::from_parts(head, body),
        stream,
        exchange,
        &config,
        &shared,
        FromClient { handed, borrows },
    );
    match response.await {
        Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
            // No client asked for it: Upgrade is not forwarded.
            fail(Trouble::Malformed, driver);
            answer(Trouble::Malformed)
        }
        Ok(mut response) => {
            if headers::forward_response(response.headers_mut()).is_err() {
                fail(Trouble::Malformed, driver);
                return answer(Trouble::Malformed);
            }
            let early = !request_end.is_reached();
            let (head, body) = response.into_parts();
            let body = match borrow.filter(|_| !early) {
                Some(borrow) => {
                    ResponseBody::spliced_if_large(body, borrow, &shared.slots, &signals).await
                }
                None => ResponseBody::Copied(body),
            };
            let body = Either::Left(Relay::new(body, version, signals, driver));
            let mut response = Response::from_parts(head, body);
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
            let trouble = Trouble::of(&error);
            fail(trouble, driver);
            answer_or_leave(trouble, &signals).await
        }
    }
}

/// Tells the driver that no response will come.
fn fail(trouble: Trouble, driver: oneshot::Sender<Handed>) {
    // Fails only if the proxy ends and has dropped the driver.
    let _ = driver.send(Handed {
        came: Came::failed(trouble),
        body_bytes: 0,
        expected_bytes: None,
    });
}

/// As [`answer`]; if the client has left, its connection ends without an answer.
async fn answer_or_leave(trouble: Trouble, signals: &ClientSignals) -> Response<ProxyBody> {
    if trouble == Trouble::ClientLeft {
        signals.client_left();
        // The connection's loop sees the signal, and drops this future.
        std::future::pending::<Infallible>().await;
    }
    answer(trouble)
}

/// An answer of the proxy's own. It is the last on its connection, because some of the request may be unread.
fn answer(trouble: Trouble) -> Response<ProxyBody> {
    closing(text_response(trouble.status(), trouble.text()))
}

/// Status and text of the answer; `None` if the request is for the proxy itself, which is no fault.
fn refusal(refused: Refused) -> Option<(StatusCode, &'static str)> {
    match refused {
        Refused::Malformed(why) => Some((StatusCode::BAD_REQUEST, why)),
        Refused::NotImplemented => Some((
            StatusCode::NOT_IMPLEMENTED,
            "this method or transfer coding is not forwarded",
        )),
        Refused::ForTheProxy => None,
    }
}

fn for_the_proxy() -> Response<ProxyBody> {
    let mut response = Response::new(Either::Right(Full::default()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
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
    use rstlab_wire::{Slots, close};
    use rstlab_witness::{Connection, Dispatch, Summary, Takers, Witness};
    use tokio::net::TcpListener;
    use tokio::sync::Semaphore;
    use tokio_util::sync::CancellationToken;
    use tokio_util::task::TaskTracker;

    use crate::exchange::tests::finished;
    use crate::pool::Pool;

    fn shared(takers: &Takers) -> Arc<Shared> {
        let dispatch = Dispatch::new(Witness::default(), takers.clone());
        Arc::new(Shared {
            dispatch,
            tasks: TaskTracker::new(),
            slots: Slots::new(2, 1),
            watchers: Semaphore::new(1),
            pool: Some(Pool::default()),
            numbers: Arc::default(),
            abandon: CancellationToken::new(),
        })
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
                left: 1,
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
        let (stream, server) = upstream::connect(&config, tape).await.unwrap();
        let client = stream.local_addr().unwrap();
        close::abort(listener.accept().await.unwrap().0);
        stream.readable().await.unwrap();
        assert!(stream.peer_addr().is_err());
        let mut finished = finished();
        finished.exchange.server = Some(server);
        finished.exchange.locate(&stream);
        let ends = finished.into_ended().0.connection;
        assert_eq!(ends, Some(Connection { server, client }));
    }
}
