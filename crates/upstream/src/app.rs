use std::convert::Infallible;
use std::error::Error;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, Either, Full, LengthLimitError};
use rstlab_wire::{causes, chain};
use tower::util::{BoxCloneSyncService, MapResponseLayer};
use tower::{BoxError, ServiceBuilder, service_fn};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::timeout::{RequestBodyTimeoutLayer, TimeoutError};

use crate::keep::wants_more;
use crate::last::LastByte;
use crate::part::Part;
use crate::{BodyPolicy, Config, Mode};

/// Longest time between two pieces of a body that is being read; then 408.
const BODY_STALL: Duration = Duration::from_secs(60);

/// What was answered on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Why it was given.
    pub kind: Kind,
}

/// Why an answer was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The request's body was treated as the mode says: the response the mode is meant to show.
    Response,
    /// The request was refused before its end was read: 400, 408, 413, 431, or 500 after a panic.
    Refusal,
    /// A health check, `OPTIONS *`.
    Health,
}

/// What is known about the one exchange of a connection, shared between its parts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Exchange {
    answer: Arc<OnceLock<Answer>>,
    body_bytes: Arc<OnceLock<u64>>,
    last: LastByte,
}

impl Exchange {
    /// What the app answered, if a request reached it.
    pub(crate) fn answer(&self) -> Option<Answer> {
        self.answer.get().copied()
    }

    /// Bytes of the request's body; `None` if that was not said beforehand, or no request reached the app.
    pub(crate) fn body_bytes(&self) -> Option<u64> {
        self.body_bytes.get().copied()
    }

    /// Told when the connection is to be taken from hyper once the response's last byte is out.
    pub(crate) fn last_byte(&self) -> LastByte {
        self.last.clone()
    }
}

/// The app's response: `x` over and over, or a line of text.
type AppBody = Either<Part, Full<Bytes>>;

/// The app behind its middleware.
pub(crate) type App<B> = BoxCloneSyncService<
    Request<B>,
    Response<tower_http::body::UnsyncBoxBody<Bytes, BoxError>>,
    Infallible,
>;

/// The app for one connection.
pub(crate) fn service<B>(config: Arc<Config>, exchange: Exchange) -> App<B>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let limit = match config.body_policy() {
        BodyPolicy::Cap(bytes) => usize::try_from(bytes).unwrap_or(usize::MAX),
        BodyPolicy::Ignore | BodyPolicy::Drain => usize::MAX,
    };
    let Exchange {
        answer,
        body_bytes,
        last,
    } = exchange;
    let note = move |response: Response<_>| {
        // The layers that refuse by themselves leave no kind.
        let kind = response.extensions().get().copied();
        let noted = Answer {
            status: response.status(),
            kind: kind.unwrap_or(Kind::Refusal),
        };
        // One connection carries one request.
        answer.get_or_init(|| noted);
        response
    };
    let app = ServiceBuilder::new()
        .layer(MapResponseLayer::new(note))
        .layer(CatchPanicLayer::new())
        .layer(RequestBodyLimitLayer::new(limit))
        .layer(RequestBodyTimeoutLayer::new(BODY_STALL))
        .service(service_fn(move |request: Request<_>| {
            if let Some(bytes) = announced(request.headers()) {
                // One connection carries one request.
                body_bytes.get_or_init(|| bytes);
            }
            let (config, last) = (Arc::clone(&config), last.clone());
            async move { Ok::<_, Infallible>(answer_to(request, &config, last).await) }
        }));
    BoxCloneSyncService::new(app)
}

/// The length of a body, as the head tells it (RFC 9112 §6.3).
fn announced(fields: &HeaderMap) -> Option<u64> {
    if fields.contains_key(TRANSFER_ENCODING) {
        return None;
    }
    match fields.get(CONTENT_LENGTH) {
        Some(length) => length.to_str().ok()?.parse().ok(),
        None => Some(0),
    }
}

async fn answer_to<B>(request: Request<B>, config: &Config, last: LastByte) -> Response<AppBody>
where
    B: Body<Error = BoxError>,
{
    if request.method() == Method::OPTIONS && request.uri() == "*" {
        return response(
            StatusCode::NO_CONTENT,
            Kind::Health,
            Either::Left(Part::whole(0)),
        );
    }
    let keep_alive = config.mode == Mode::IdleClose && wants_more(&request);
    // An ignored body lives until the answer, as it does in an app that never touches it.
    let body = request.into_body();
    let mut body = pin!(body);
    match config.body_policy() {
        BodyPolicy::Ignore => {}
        BodyPolicy::Drain | BodyPolicy::Cap(_) => {
            while let Some(frame) = body.frame().await {
                if let Err(error) = frame {
                    tracing::debug!(error = chain(error.as_ref()), "the body could not be read");
                    return refusal(status_for(error.as_ref()));
                }
            }
        }
    }
    // tokio's timer takes a millisecond for no time at all.
    if !config.think.is_zero() {
        tokio::time::sleep(config.think).await;
    }
    let bytes = config.response_bytes;
    let body = match config.mode {
        Mode::Truncate | Mode::Kill => Part::half(bytes, last),
        Mode::IdleClose if keep_alive => Part::whole_until(bytes, last),
        Mode::Lazy
        | Mode::Drain
        | Mode::Cap
        | Mode::Delay
        | Mode::Linger
        | Mode::Abort
        | Mode::IdleClose => Part::whole(bytes),
    };
    let mut response = response(config.status, Kind::Response, Either::Left(body));
    if keep_alive {
        response.headers_mut().remove(CONNECTION);
    }
    response
}

fn response(status: StatusCode, kind: Kind, body: AppBody) -> Response<AppBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.extensions_mut().insert(kind);
    let fields = response.headers_mut();
    // hyper says so only to HTTP/1.1 clients.
    fields.insert(CONNECTION, HeaderValue::from_static("close"));
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    fields.insert(CONTENT_TYPE, text);
    response
}

fn refusal(status: StatusCode) -> Response<AppBody> {
    let text = format!("{status}\n");
    response(status, Kind::Refusal, Either::Right(Full::from(text)))
}

/// What to answer when a body could not be read to its end. A client that left gets a 400 nobody reads.
fn status_for(error: &(dyn Error + 'static)) -> StatusCode {
    for cause in causes(error) {
        if cause.is::<LengthLimitError>() {
            return StatusCode::PAYLOAD_TOO_LARGE;
        }
        if cause.is::<TimeoutError>() {
            return StatusCode::REQUEST_TIMEOUT;
        }
    }
    StatusCode::BAD_REQUEST
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Mode;
    use futures_util::{StreamExt, stream};
    use http_body::Frame;
    use http_body_util::{Empty, StreamBody};
    use tokio::time::Instant;
    use tower::ServiceExt;

    async fn answer<B>(config: Config, request: Request<B>) -> (Answer, usize)
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let exchange = Exchange::default();
        let app = service(Arc::new(config), exchange.clone());
        let response = app.oneshot(request).await.unwrap();
        let answer = exchange.answer().unwrap();
        assert_eq!(answer.status, response.status());
        let body = response.into_body().collect().await.unwrap();
        (answer, body.to_bytes().len())
    }

    fn in_mode(mode: Mode) -> Config {
        Config {
            mode,
            response_bytes: 100,
            max_body: 10,
            ..Config::default()
        }
    }

    /// A body of unknown length that never ends.
    fn stalled(bytes: usize) -> impl Body<Data = Bytes, Error = Infallible> + Send + 'static {
        let data = Frame::data(Bytes::from(vec![0; bytes]));
        StreamBody::new(stream::iter([Ok(data)]).chain(stream::pending()))
    }

    #[tokio::test]
    async fn an_ignored_body_is_not_waited_for() {
        for mode in [Mode::Lazy, Mode::Delay, Mode::Linger, Mode::Abort] {
            let (answer, bytes) = answer(in_mode(mode), Request::new(stalled(20))).await;
            assert_eq!((answer.status.as_u16(), bytes), (200, 100));
            assert_eq!(answer.kind, Kind::Response);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stalls_is_408() {
        for mode in [Mode::Drain, Mode::Cap] {
            let start = Instant::now();
            let (answer, _) = answer(in_mode(mode), Request::new(stalled(10))).await;
            assert_eq!(answer.status, StatusCode::REQUEST_TIMEOUT);
            assert_eq!(answer.kind, Kind::Refusal);
            assert_eq!(start.elapsed().as_secs(), BODY_STALL.as_secs());
        }
    }

    #[tokio::test]
    async fn the_cap_holds_for_known_and_unknown_lengths() {
        let body = |bytes| Request::new(Full::from(vec![0; bytes]));
        let (whole, _) = answer(in_mode(Mode::Cap), body(10)).await;
        assert_eq!((whole.status.as_u16(), whole.kind), (200, Kind::Response));
        let mut declared = body(0);
        declared
            .headers_mut()
            .insert("content-length", HeaderValue::from_static("11"));
        let over = [
            answer(in_mode(Mode::Cap), Request::new(stalled(11))).await,
            answer(in_mode(Mode::Cap), body(11)).await,
            answer(in_mode(Mode::Cap), declared).await,
        ];
        for (over, bytes) in over {
            assert_eq!((over.status.as_u16(), over.kind), (413, Kind::Refusal));
            assert!(bytes > 0, "the refusal says why");
        }
        let (whole, _) = answer(in_mode(Mode::Drain), body(11)).await;
        assert_eq!(whole.status, 200);
    }

    #[tokio::test(start_paused = true)]
    async fn the_app_thinks_after_reading() {
        let config = Config {
            think: Duration::from_secs(3),
            ..in_mode(Mode::Drain)
        };
        let start = Instant::now();
        answer(config, Request::new(Full::from("body"))).await;
        assert_eq!(start.elapsed().as_secs(), 3);
    }

    #[tokio::test]
    async fn a_health_check_is_answered_at_once() {
        let mut request = Request::new(stalled(1));
        *request.method_mut() = Method::OPTIONS;
        *request.uri_mut() = "*".parse().unwrap();
        let config = Config {
            think: Duration::from_secs(3600),
            ..in_mode(Mode::Drain)
        };
        let (answer, bytes) = answer(config, request).await;
        assert_eq!(answer.kind, Kind::Health);
        assert_eq!((answer.status.as_u16(), bytes), (204, 0));
    }

    #[tokio::test]
    async fn a_panic_is_a_500() {
        let frames = stream::iter([()]).map(|()| -> Result<Frame<Bytes>, Infallible> { panic!() });
        let request = Request::new(StreamBody::new(frames));
        let (answer, _) = answer(in_mode(Mode::Drain), request).await;
        assert_eq!((answer.status.as_u16(), answer.kind), (500, Kind::Refusal));
        let request = Request::new(Empty::<Bytes>::new());
        let (answer, _) = super::tests::answer(in_mode(Mode::Drain), request).await;
        assert_eq!(answer.status, 200);
    }
}
