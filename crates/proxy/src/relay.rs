use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Version;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::oneshot;

use crate::client_io::Link;
use crate::report::{Exchange, Outcome};
use crate::trouble::Trouble;

/// A response body on its way to the client: counted, and never made to look whole if it is not.
#[derive(Debug)]
pub(crate) struct Relay<B: Body> {
    body: B,
    exchange: Arc<Exchange>,
    link: Arc<Link>,
    /// The client can tell the body's end only by the end of the connection.
    close_delimited: bool,
    /// Taken when the outcome is known; dropped with the body if the client leaves before.
    outcome: Option<oneshot::Sender<Outcome>>,
    failed: Option<B::Error>,
}

impl<B: Body> Relay<B> {
    /// Hands `body` to a client that speaks `version`.
    pub(crate) fn new(
        body: B,
        version: Version,
        exchange: Arc<Exchange>,
        link: Arc<Link>,
        outcome: oneshot::Sender<Outcome>,
    ) -> Self {
        let length = body.size_hint().exact();
        if let Some(length) = length {
            // Set nowhere else.
            let _ = exchange.expected_bytes.set(length);
        }
        // The head waits in hyper's buffer.
        link.handed_over();
        let mut relay = Self {
            close_delimited: version == Version::HTTP_10 && length.is_none(),
            body,
            exchange,
            link,
            outcome: Some(outcome),
            failed: None,
        };
        if relay.body.is_end_stream() {
            relay.whole();
        }
        relay
    }

    fn whole(&mut self) {
        self.exchange.seen.response_whole();
        self.end(Outcome::Whole);
    }

    fn end(&mut self, outcome: Outcome) {
        if let Some(sender) = self.outcome.take() {
            // The driver waits for it; if it is gone, so is the proxy.
            let _ = sender.send(outcome);
        }
    }
}

impl<B> Body for Relay<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Error + Unpin + 'static,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if self.failed.is_none() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
                    self.exchange
                        .upstream_bytes
                        .fetch_add(bytes, Ordering::Relaxed);
                    self.link.handed_over();
                    if self.body.is_end_stream() {
                        self.whole();
                    }
                    return Poll::Ready(Some(Ok(frame)));
                }
                None => {
                    self.whole();
                    return Poll::Ready(None);
                }
                Some(Err(error)) => {
                    self.end(Outcome::Truncated(Trouble::of(&error)));
                    if self.close_delimited {
                        self.link.end_with_reset();
                    }
                    self.failed = Some(error);
                }
            }
        }
        // hyper drops what it holds when a body fails: what the upstream did send goes out first.
        ready!(self.link.poll_flushed(cx));
        Poll::Ready(self.failed.take().map(Err))
    }

    fn is_end_stream(&self) -> bool {
        self.failed.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::exchange_for_tests;
    use futures_util::FutureExt;
    use http_body_util::{BodyExt, StreamBody};
    use std::io;

    /// A body of four bytes that then fails, handed to a client.
    fn cut_relay(
        version: Version,
    ) -> (
        impl Body<Data = Bytes, Error = io::Error> + Unpin,
        Arc<Link>,
        oneshot::Receiver<Outcome>,
    ) {
        let frames = [
            Ok(Frame::data(Bytes::from("part"))),
            Err(io::Error::from_raw_os_error(104)),
        ];
        let link = Arc::new(Link::new(([127, 0, 0, 1], 9).into()));
        let (outcome, told) = oneshot::channel();
        let relay = Relay::new(
            StreamBody::new(futures_util::stream::iter(frames)),
            version,
            Arc::new(exchange_for_tests(0, None)),
            Arc::clone(&link),
            outcome,
        );
        (relay, link, told)
    }

    #[test]
    fn a_failure_waits_until_what_came_before_it_is_out() {
        let (mut relay, link, mut told) = cut_relay(Version::HTTP_11);
        assert!(relay.frame().now_or_never().unwrap().unwrap().is_ok());
        assert!(relay.frame().now_or_never().is_none(), "not flushed yet");
        assert_eq!(told.try_recv(), Ok(Outcome::Truncated(Trouble::Reset)));
        link.flushed();
        assert!(relay.frame().now_or_never().unwrap().unwrap().is_err());
        assert!(
            !link.ends_with_reset(),
            "the last chunk is missing: that tells"
        );
    }

    #[test]
    fn without_a_length_only_a_reset_tells() {
        let (mut relay, link, _told) = cut_relay(Version::HTTP_10);
        relay.frame().now_or_never().unwrap().unwrap().unwrap();
        assert!(relay.frame().now_or_never().is_none());
        assert!(link.ends_with_reset());
    }
}
