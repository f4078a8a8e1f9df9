//! The app behind its middleware: treats a request's body as the mode says, and answers.

use std::convert::Infallible;
use std::error::Error;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, Either, Full, LengthLimitError};
use rstlab_wire::{causes, chain};
use rstlab_witness::AnswerKind;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tower::util::{BoxCloneSyncService, MapResponseLayer};
use tower::{BoxError, ServiceBuilder, service_fn};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::timeout::{RequestBodyTimeoutLayer, TimeoutError};

use crate::keep::wants_more;
use crate::last::LastByte;
use crate::part::Part;
use crate::{BodyPolicy, ResponseKind, UpstreamConfig};

/// Limit of the time between two pieces of a body; then 408.
const BODY_STALL: Duration = Duration::from_secs(60);

/// The answer that was given on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The answer's status.
    pub status: u16,
    /// Why the answer was given.
    pub kind: AnswerKind,
}

/// Bytes of the request's body, as its head announces them; `None` if the head does not say.
#[derive(Debug, Clone, Copy)]
struct Announced(Option<u64>);

/// The app's response: `x` over and over, or a line of text.
type AppBody = Either<Part, Full<Bytes>>;

/// The app behind its middleware.
pub(crate) type App<B> = BoxCloneSyncService<
    Request<B>,
    Response<tower_http::body::UnsyncBoxBody<Bytes, BoxError>>,
    Infallible,
>;

/// The app for one connection. `told` gets the first answer, and how long the request's body is, if its head says so.
/// `last` learns when the connection is to be taken from hyper, once the response's last byte is out.
pub(crate) fn service<B>(
    config: Arc<UpstreamConfig>,
    told: mpsc::Sender<(Answer, Option<u64>)>,
    last: LastByte,
) -> App<B>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let limit = match config.body_policy() {
        BodyPolicy::Cap(bytes) => usize::try_from(bytes).unwrap_or(usize::MAX),
        BodyPolicy::Ignore | BodyPolicy::Drain => usize::MAX,
    };
    let note = move |response: Response<_>| {
        // An answer without a kind is a layer's refusal.
        let kind = response.extensions().get().copied();
        let answer = Answer {
            status: response.status().as_u16(),
            kind: kind.unwrap_or(AnswerKind::Refusal),
        };
        let announced = response.extensions().get::<Announced>();
        // The channel holds one answer: a connection carries one request.
        let _ = told.try_send((answer, announced.and_then(|announced| announced.0)));
        response
    };
    let app = ServiceBuilder::new()
        .layer(MapResponseLayer::new(note))
        .layer(CatchPanicLayer::new())
        .layer(RequestBodyLimitLayer::new(limit))
        .layer(RequestBodyTimeoutLayer::new(BODY_STALL))
        .service(service_fn(move |request: Request<_>| {
            let (config, last) = (Arc::clone(&config), last.clone());
            async move {
                let announced = announced(request.headers());
                let mut response = answer_to(request, &config, last).await;
                response.extensions_mut().insert(announced);
                Ok::<_, Infallible>(response)
            }
        }));
    BoxCloneSyncService::new(app)
}

/// The length of a body, as the head announces it (RFC 9112 §6.3).
fn announced(fields: &HeaderMap) -> Announced {
    let length = || fields.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok();
    Announced(if fields.contains_key(TRANSFER_ENCODING) {
        None
    } else if fields.contains_key(CONTENT_LENGTH) {
        length()
    } else {
        Some(0)
    })
}

async fn answer_to<B>(
    request: Request<B>,
    config: &UpstreamConfig,
    last: LastByte,
) -> Response<AppBody>
where
    B: Body<Error = BoxError>,
{
    if request.method() == Method::OPTIONS && request.uri() == "*" {
        return response(
            StatusCode::NO_CONTENT,
            AnswerKind::Health,
            Either::Left(Part::whole(0)),
        );
    }
    let keep_alive = config.mode.keeps_alive() && wants_more(&request);
    // An ignored body lives until the answer, as in an app that never touches it.
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
    // tokio's timer would take a millisecond for a pause of zero.
    if !config.think.is_zero() {
        tokio::time::sleep(config.think).await;
    }
    let bytes = config.response_bytes;
    let body = match config.mode.row().response {
        ResponseKind::Half => Part::half(bytes, last),
        ResponseKind::Whole if keep_alive => Part::whole_until(bytes, last),
        ResponseKind::Whole => Part::whole(bytes),
    };
    let mut response = response(config.status, AnswerKind::Response, Either::Left(body));
    if keep_alive {
        response.headers_mut().remove(CONNECTION);
    }
    response
}

fn response(status: StatusCode, kind: AnswerKind, body: AppBody) -> Response<AppBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.extensions_mut().insert(kind);
    let fields = response.headers_mut();
    // hyper adds this field only for HTTP/1.1 clients.
    fields.insert(CONNECTION, HeaderValue::from_static("close"));
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    fields.insert(CONTENT_TYPE, text);
    response
}

fn refusal(status: StatusCode) -> Response<AppBody> {
    let text = format!("{status}\n");
    response(status, AnswerKind::Refusal, Either::Right(Full::from(text)))
}

/// The status for a body that could not be read to its end; 400 also for a client that has left.
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

    async fn answer<B>(config: UpstreamConfig, request: Request<B>) -> (Answer, usize)
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let (told, mut answers) = mpsc::channel(1);
        let app = service(Arc::new(config), told, LastByte::default());
        let response = app.oneshot(request).await.unwrap();
        let (answer, _) = answers.try_recv().unwrap();
        assert_eq!(answer.status, response.status());
        let body = response.into_body().collect().await.unwrap();
        (answer, body.to_bytes().len())
    }

    fn in_mode(mode: Mode) -> UpstreamConfig {
        UpstreamConfig {
            mode,
            response_bytes: 100,
            max_body: 10,
            ..UpstreamConfig::default()
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
            assert_eq!((answer.status, bytes), (200, 100));
            assert_eq!(answer.kind, AnswerKind::Response);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stalls_is_408() {
        for mode in [Mode::Drain, Mode::Cap] {
            let start = Instant::now();
            let (answer, _) = answer(in_mode(mode), Request::new(stalled(10))).await;
            assert_eq!(answer.status, StatusCode::REQUEST_TIMEOUT);
            assert_eq!(answer.kind, AnswerKind::Refusal);
            assert_eq!(start.elapsed().as_secs(), BODY_STALL.as_secs());
        }
    }

    #[tokio::test]
    async fn the_cap_holds_for_known_and_unknown_lengths() {
        let body = |bytes| Request::new(Full::from(vec![0; bytes]));
        let (whole, _) = answer(in_mode(Mode::Cap), body(10)).await;
        assert_eq!((whole.status, whole.kind), (200, AnswerKind::Response));
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
            assert_eq!((over.status, over.kind), (413, AnswerKind::Refusal));
            assert!(bytes > 0, "the refusal says why");
        }
        let (whole, _) = answer(in_mode(Mode::Drain), body(11)).await;
        assert_eq!(whole.status, 200);
    }

    #[tokio::test(start_paused = true)]
    async fn the_app_thinks_after_reading() {
        let config = UpstreamConfig {
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
        let config = UpstreamConfig {
            think: Duration::from_secs(3600),
            ..in_mode(Mode::Drain)
        };
        let (answer, bytes) = answer(config, request).await;
        assert_eq!(answer.kind, AnswerKind::Health);
        assert_eq!((answer.status, bytes), (204, 0));
    }

    #[tokio::test]
    async fn a_panic_is_a_500() {
        let frames = stream::iter([()]).map(|()| -> Result<Frame<Bytes>, Infallible> { panic!() });
        let request = Request::new(StreamBody::new(frames));
        let (answer, _) = answer(in_mode(Mode::Drain), request).await;
        assert_eq!((answer.status, answer.kind), (500, AnswerKind::Refusal));
        let request = Request::new(Empty::<Bytes>::new());
        let (next, _) = super::tests::answer(in_mode(Mode::Drain), request).await;
        assert_eq!(next.status, 200);
    }
}
