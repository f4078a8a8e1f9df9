//! A body of any length that takes no memory.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// Length of a piece.
const PIECE_BYTES: usize = 64 * 1024;

/// Every piece of every body: a body's length takes no memory.
static PIECE: [u8; PIECE_BYTES] = [b'x'; PIECE_BYTES];

/// A body that repeats `x`, for a response or a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fill {
    left: u64,
}

impl Fill {
    /// A body of `bytes` bytes.
    pub fn new(bytes: u64) -> Self {
        Self { left: bytes }
    }
}

impl Body for Fill {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = usize::try_from(self.left).map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES));
        if piece == 0 {
            return Poll::Ready(None);
        }
        self.left -= piece as u64;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&PIECE[..piece])))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use http_body_util::BodyExt;

    #[test]
    fn a_body_gives_exactly_its_number_of_bytes() {
        for bytes in [0, 1, 65_535, 65_536, 65_537, 614_400] {
            let mut body = Fill::new(bytes);
            let mut given = 0;
            while let Some(frame) = body.frame().now_or_never().unwrap() {
                let data = frame.unwrap().into_data().unwrap();
                assert!(data.iter().all(|byte| *byte == b'x'));
                given += data.len() as u64;
                assert_eq!(body.size_hint().exact(), Some(bytes - given));
            }
            assert_eq!(given, bytes);
            assert!(body.is_end_stream());
        }
    }

    #[test]
    fn a_piece_is_not_copied() {
        let mut body = Fill::new(u64::MAX);
        for _ in 0..2 {
            let frame = body.frame().now_or_never().unwrap().unwrap().unwrap();
            assert_eq!(frame.data_ref().unwrap().as_ptr(), PIECE.as_ptr());
        }
    }
}
