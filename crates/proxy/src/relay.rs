//! Relays a response body to the client, counts it, and never makes a cut one look whole.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Version;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::oneshot;

use crate::client_io::ClientSignals;
use crate::exchange::{Came, Handed};
use crate::trouble::Trouble;

/// A response body on its way to the client. It tells the driver of the upstream connection what the client was handed.
#[derive(Debug)]
pub(crate) struct Relay<B: Body> {
    body: B,
    signals: Arc<ClientSignals>,
    /// The client can tell the body's end only by the end of the connection.
    close_delimited: bool,
    told: Told,
    failed: Option<B::Error>,
}

/// Tells the driver what the client was handed, as soon as that is known; the drop tells that the client has left.
#[derive(Debug)]
struct Told {
    handed: Handed,
    driver: Option<oneshot::Sender<Handed>>,
}

impl Told {
    fn tell(&mut self, came: Came) {
        if let Some(driver) = self.driver.take() {
            // Fails only if the proxy ends and has dropped the driver.
            let _ = driver.send(Handed {
                came,
                ..self.handed
            });
        }
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.tell(Came::ClientLeft);
    }
}

impl<B: Body> Relay<B> {
    /// Relays `body` to a client that speaks `version`; `driver` learns what the client was handed.
    pub(crate) fn new(
        body: B,
        version: Version,
        signals: Arc<ClientSignals>,
        driver: oneshot::Sender<Handed>,
    ) -> Self {
        let expected_bytes = body.size_hint().exact();
        // The head waits in hyper's buffer.
        signals.handed_over();
        let mut relay = Self {
            close_delimited: version == Version::HTTP_10 && expected_bytes.is_none(),
            body,
            signals,
            told: Told {
                handed: Handed {
                    came: Came::ClientLeft,
                    body_bytes: 0,
                    expected_bytes,
                },
                driver: Some(driver),
            },
            failed: None,
        };
        if relay.body.is_end_stream() {
            relay.told.tell(Came::Whole);
        }
        relay
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
            if self.signals.responses.is_on() {
                return Poll::Pending;
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    let bytes = frame.data_ref().map_or(0, Bytes::len);
                    self.told.handed.body_bytes += bytes as u64;
                    self.signals.handed_over();
                    self.signals.responses.gave(bytes);
                    if self.body.is_end_stream() {
                        self.told.tell(Came::Whole);
                    }
                    return Poll::Ready(Some(Ok(frame)));
                }
                None => {
                    self.told.tell(Came::Whole);
                    return Poll::Ready(None);
                }
                Some(Err(error)) => {
                    self.told.tell(Came::Cut(Trouble::of(&error)));
                    if self.close_delimited {
                        self.signals.end_with_reset();
                    }
                    self.failed = Some(error);
                }
            }
        }
        // hyper drops its buffer when a body fails: the bytes that the upstream sent go out first.
        ready!(self.signals.poll_flushed(cx));
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
    use futures_util::FutureExt;
    use http_body_util::{BodyExt, StreamBody};
    use std::io;

    /// A body of four bytes that then fails, handed to a client.
    fn cut_relay(
        version: Version,
    ) -> (
        impl Body<Data = Bytes, Error = io::Error> + Unpin,
        Arc<ClientSignals>,
        oneshot::Receiver<Handed>,
    ) {
        let frames = [
            Ok(Frame::data(Bytes::from("part"))),
            Err(io::Error::from_raw_os_error(104)),
        ];
        let signals = Arc::new(ClientSignals::new(([127, 0, 0, 1], 9).into()));
        let (driver, told) = oneshot::channel();
        let relay = Relay::new(
            StreamBody::new(futures_util::stream::iter(frames)),
            version,
            Arc::clone(&signals),
            driver,
        );
        (relay, signals, told)
    }

    #[test]
    fn a_failure_waits_until_the_bytes_before_it_are_out() {
        let (mut relay, signals, mut told) = cut_relay(Version::HTTP_11);
        assert!(relay.frame().now_or_never().unwrap().unwrap().is_ok());
        assert!(relay.frame().now_or_never().is_none(), "not flushed yet");
        let handed = Handed {
            came: Came::Cut(Trouble::Reset),
            body_bytes: 4,
            expected_bytes: None,
        };
        assert_eq!(told.try_recv(), Ok(handed));
        signals.flushed();
        assert!(relay.frame().now_or_never().unwrap().unwrap().is_err());
        assert!(
            !signals.ends_with_reset(),
            "the last chunk is missing: that tells"
        );
    }

    #[test]
    fn a_client_that_takes_nothing_holds_two_small_pieces() {
        let pieces = [0; 3].map(|_| Ok::<_, io::Error>(Frame::data(Bytes::from("piece"))));
        let signals = Arc::new(ClientSignals::new(([127, 0, 0, 1], 9).into()));
        let mut relay = Relay::new(
            StreamBody::new(futures_util::stream::iter(pieces)),
            Version::HTTP_11,
            Arc::clone(&signals),
            oneshot::channel().0,
        );
        for _ in 0..2 {
            assert!(relay.frame().now_or_never().is_some());
        }
        assert!(relay.frame().now_or_never().is_none(), "not flushed yet");
        signals.flushed();
        assert!(relay.frame().now_or_never().is_some());
    }

    #[test]
    fn a_cut_response_without_a_length_ends_with_a_reset() {
        let (mut relay, signals, _told) = cut_relay(Version::HTTP_10);
        relay.frame().now_or_never().unwrap().unwrap().unwrap();
        assert!(relay.frame().now_or_never().is_none());
        assert!(signals.ends_with_reset());
    }
}
