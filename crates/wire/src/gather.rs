//! Gathers the first bytes of a body into one piece.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

/// Body bytes that are gathered before the first write of a body.
pub const GATHER_BYTES: usize = 64 * 1024;

/// Limit of the pieces that come in while a body is gathered, for whoever wants to bound the memory of that: the
/// gathered bytes, the piece behind them and the buffer it was read into are in memory at the same time.
pub const GATHERED_READ_BYTES: usize = 16 * 1024;

pin_project! {
    /// A body that comes in one piece if it fits in [`GATHER_BYTES`], however its bytes arrived.
    ///
    /// A longer body streams: at once if its length is announced, else after a piece of at least that size.
    #[derive(Debug)]
    pub struct Gather<B> {
        #[pin]
        body: B,
        gathered: BytesMut,
        // Bytes after which nothing more is gathered.
        enough: usize,
        trailers: Option<Frame<Bytes>>,
        at: GatherState,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GatherState {
    Gathering,
    /// `gathered` is the next piece; if `ended`, nothing but trailers can follow.
    Gathered {
        ended: bool,
    },
    Streaming,
    Ended,
}

impl<B: Body<Data = Bytes>> Gather<B> {
    /// Wraps a body; nothing is read until it is polled.
    pub fn new(body: B) -> Self {
        let at = if body.is_end_stream() {
            GatherState::Ended
        } else {
            GatherState::Gathering
        };
        let is_longer = body.size_hint().lower() > GATHER_BYTES as u64;
        Self {
            body,
            gathered: BytesMut::new(),
            enough: if is_longer { 1 } else { GATHER_BYTES },
            trailers: None,
            at,
        }
    }

    /// Waits until the first piece is there, and keeps it for [`poll_frame`](Body::poll_frame).
    ///
    /// # Errors
    /// The body's own, if it fails before.
    pub fn poll_gathered(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), B::Error>> {
        let mut this = self.project();
        while *this.at == GatherState::Gathering {
            let frame = ready!(this.body.as_mut().poll_frame(cx)).transpose()?;
            let ended = match frame.map(Frame::into_data) {
                None => true,
                Some(Ok(data)) => {
                    if this.gathered.is_empty() {
                        // All the room at once: a buffer that grows leaves its smaller ones in the allocator.
                        let rest = this.body.size_hint().upper().unwrap_or(u64::MAX);
                        let rest = usize::try_from(rest).unwrap_or(usize::MAX);
                        let room = data.len().saturating_add(rest);
                        let room = room.min(*this.enough + GATHERED_READ_BYTES);
                        *this.gathered = BytesMut::with_capacity(room.max(data.len()));
                    }
                    this.gathered.extend_from_slice(&data);
                    this.body.is_end_stream()
                }
                Some(Err(other)) => {
                    *this.trailers = Some(other);
                    true
                }
            };
            if ended || this.gathered.len() >= *this.enough {
                *this.at = GatherState::Gathered { ended };
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<B: Body<Data = Bytes>> Body for Gather<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        ready!(self.as_mut().poll_gathered(cx))?;
        let this = self.project();
        if let GatherState::Gathered { ended } = *this.at {
            *this.at = if ended {
                GatherState::Ended
            } else {
                GatherState::Streaming
            };
            if !this.gathered.is_empty() {
                // Taken, not split off: what is left of a split buffer keeps the memory of the piece.
                let piece = std::mem::take(this.gathered).freeze();
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
        }
        if *this.at == GatherState::Ended {
            return Poll::Ready(this.trailers.take().map(Ok));
        }
        let frame = ready!(this.body.poll_frame(cx));
        if frame.is_none() {
            *this.at = GatherState::Ended;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match self.at {
            GatherState::Gathering | GatherState::Gathered { .. } => false,
            GatherState::Streaming => self.body.is_end_stream(),
            GatherState::Ended => self.trailers.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let gathered = self.gathered.len() as u64;
        let rest = self.body.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + gathered);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + gathered);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt, Full, StreamBody, channel::Channel};
    use std::convert::Infallible;

    type Frames = Vec<Result<Frame<Bytes>, Infallible>>;

    async fn frames(body: impl Body<Data = Bytes, Error = Infallible>) -> Vec<Frame<Bytes>> {
        let mut body = std::pin::pin!(Gather::new(body));
        let mut frames = Vec::new();
        while let Some(frame) = body.frame().await {
            frames.push(frame.unwrap());
        }
        assert!(body.is_end_stream());
        frames
    }

    #[tokio::test]
    async fn a_small_body_is_one_piece_however_it_arrives() {
        let (mut sender, body) = Channel::<Bytes, Infallible>::new(1);
        let writer = tokio::spawn(async move {
            for piece in ["a", "bc", "def"] {
                sender.send_data(Bytes::from(piece)).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        let frames = frames(body).await;
        writer.await.unwrap();
        assert_eq!(frames.len(), 1);
        assert_eq!(frames[0].data_ref().unwrap(), "abcdef");
    }

    #[tokio::test]
    async fn a_body_that_announces_a_greater_length_streams_at_once() {
        let announced = Full::new(Bytes::from(vec![7; GATHER_BYTES + 1]));
        assert_eq!(Gather::new(announced).enough, 1);
        let announced = Full::new(Bytes::from(vec![7; GATHER_BYTES]));
        assert_eq!(Gather::new(announced).enough, GATHER_BYTES);
    }

    #[tokio::test]
    async fn trailers_follow_the_piece() {
        let mut trailers = http::HeaderMap::new();
        trailers.insert("x-sum", "1".parse().unwrap());
        let (mut sender, body) = Channel::<Bytes, Infallible>::new(4);
        sender.send_data(Bytes::from("abc")).await.unwrap();
        sender.send_trailers(trailers.clone()).await.unwrap();
        drop(sender);
        let frames = frames(body).await;
        assert_eq!(frames[0].data_ref().unwrap(), "abc");
        assert_eq!(frames[1].trailers_ref().unwrap(), &trailers);
        assert_eq!(frames.len(), 2);
    }

    #[tokio::test]
    async fn a_large_body_streams_after_the_first_piece() {
        let piece = Bytes::from(vec![7; GATHER_BYTES / 2 + 1]);
        let pieces: Frames = (0..4).map(|_| Ok(Frame::data(piece.clone()))).collect();
        let lengths: Vec<usize> = frames(StreamBody::new(futures_util::stream::iter(pieces)))
            .await
            .iter()
            .map(|frame| frame.data_ref().unwrap().len())
            .collect();
        assert_eq!(lengths, [piece.len() * 2, piece.len(), piece.len()]);
    }
}
