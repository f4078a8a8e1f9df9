//! A client's request body on its way to the upstream.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use rstlab_wire::{Gather, RequestEnd};
use tokio::time::{Sleep, sleep};

use crate::client_io::ClientSignals;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The client's body failed, which is not the upstream's fault.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientBodyError {
    /// The client sent nothing for too long.
    #[error("the client sent no body byte for {0:?}")]
    TimedOut(Duration),
    /// Too large, malformed, or cut.
    #[error("the client's body failed")]
    Failed(#[source] BoxError),
}

/// A client's request body on its way to the upstream. Its first 64 KiB are one piece, the next piece comes when the
/// kernel has the one before, the waits for the client are limited, and the body's end sets the [`RequestEnd`].
///
/// The time limit is here and not in a tower layer because `tower_http`'s `TimeoutBody` hides the body's
/// length and end, and a request without a body would go out as chunked.
#[derive(Debug)]
pub(crate) struct Outgoing<B> {
    body: Pin<Box<Gather<B>>>,
    /// Reached with the last piece.
    pub(crate) end: RequestEnd,
    /// Of the client whose body this is.
    pub(crate) signals: Arc<ClientSignals>,
    limit: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<B> Outgoing<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    pub(crate) fn new(
        body: B,
        end: RequestEnd,
        limit: Duration,
        signals: Arc<ClientSignals>,
    ) -> Self {
        // The request before may have ended with a piece on its way.
        signals.requests_out.flushed();
        if body.is_end_stream() {
            end.reach();
        }
        Self {
            body: Box::pin(Gather::new(body)),
            end,
            signals,
            limit,
            timer: None,
        }
    }

    /// Waits until the body's first piece is there, and keeps it for [`poll_frame`](Body::poll_frame).
    pub(crate) async fn gathered(&mut self) -> Result<(), ClientBodyError> {
        std::future::poll_fn(|cx| {
            let gathered = self.body.as_mut().poll_gathered(cx);
            self.limited(cx, gathered)
        })
        .await
    }

    fn limited<T, E: Into<BoxError>>(
        &mut self,
        cx: &mut Context<'_>,
        poll: Poll<Result<T, E>>,
    ) -> Poll<Result<T, ClientBodyError>> {
        if let Poll::Ready(result) = poll {
            self.timer = None;
            return Poll::Ready(result.map_err(|error| ClientBodyError::Failed(error.into())));
        }
        let limit = self.limit;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(limit)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(ClientBodyError::TimedOut(limit)))
    }
}

impl<B> Body for Outgoing<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = ClientBodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ClientBodyError>>> {
        if self.signals.requests_out.is_on() {
            return Poll::Pending;
        }
        let frame = self.body.as_mut().poll_frame(cx).map(Option::transpose);
        let frame = ready!(self.limited(cx, frame)).transpose();
        if frame.is_none() || self.body.is_end_stream() {
            self.end.reach();
        }
        if let Some(Ok(frame)) = &frame {
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            self.signals.requests_out.gave(bytes);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use http_body_util::{BodyExt, Empty, Full, StreamBody};
    use rstlab_wire::{Backpressure, Flushes, GATHER_BYTES};
    use std::convert::Infallible;
    use tokio::io::AsyncWriteExt;
    use tokio::time::Instant;

    const LIMIT: Duration = Duration::from_secs(60);

    fn signals() -> Arc<ClientSignals> {
        Arc::new(ClientSignals::new(([127, 0, 0, 1], 9).into()))
    }

    #[tokio::test]
    async fn the_last_piece_sets_the_request_s_end() {
        let end = RequestEnd::default();
        let mut body = Outgoing::new(Full::new(Bytes::from("abc")), end.clone(), LIMIT, signals());
        assert!(!end.is_reached());
        body.gathered().await.unwrap();
        assert!(!end.is_reached());
        body.frame().await.unwrap().unwrap();
        assert!(end.is_reached());

        let end = RequestEnd::default();
        Outgoing::new(Empty::<Bytes>::new(), end.clone(), LIMIT, signals());
        assert!(end.is_reached());
    }

    #[tokio::test]
    async fn the_next_piece_waits_until_the_kernel_has_the_one_before() {
        let piece = Bytes::from(vec![7; GATHER_BYTES]);
        let pieces = [0, 1].map(|_| Ok::<_, Infallible>(Frame::data(piece.clone())));
        let pieces = StreamBody::new(futures_util::stream::iter(pieces));
        let mut body = Outgoing::new(pieces, RequestEnd::default(), LIMIT, signals());
        let mut io = Flushes::new(
            tokio::io::empty(),
            body.signals.requests_out.clone(),
            Backpressure::default(),
        );
        assert!(body.frame().now_or_never().is_some());
        assert!(body.frame().now_or_never().is_none(), "not flushed yet");
        io.flush().await.unwrap();
        assert!(body.frame().now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_sends_nothing_times_out() {
        let silent = futures_util::stream::pending::<Result<Frame<Bytes>, Infallible>>();
        let mut body = Outgoing::new(
            StreamBody::new(silent),
            RequestEnd::default(),
            LIMIT,
            signals(),
        );
        let start = Instant::now();
        let error = body.frame().await.unwrap().unwrap_err();
        assert!(matches!(error, ClientBodyError::TimedOut(_)));
        assert_eq!(start.elapsed().as_secs(), LIMIT.as_secs());
    }
}
