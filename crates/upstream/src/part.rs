//! The body of a response, sent whole or in part.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::Fill;
use crate::last::LastByte;

/// The body of a response: whole, or announced whole and given in part.
///
/// After its part it neither goes on nor ends.
#[derive(Debug)]
pub(crate) struct Part {
    given: Fill,
    /// Bytes that are announced and never given.
    withheld: u64,
    /// Set when the last byte is given, or when hyper drops the body.
    last: Option<LastByte>,
}

impl Part {
    /// All of `bytes`.
    pub(crate) fn whole(bytes: u64) -> Self {
        Self {
            given: Fill::new(bytes),
            withheld: 0,
            last: None,
        }
    }

    /// All of `bytes`; the last byte sets `last`.
    pub(crate) fn whole_until(bytes: u64, last: LastByte) -> Self {
        Self {
            given: Fill::new(bytes),
            withheld: 0,
            last: Some(last),
        }
    }

    /// The first half of `bytes`; the last byte given sets `last`.
    pub(crate) fn half(bytes: u64, last: LastByte) -> Self {
        Self {
            given: Fill::new(bytes / 2),
            withheld: bytes - bytes / 2,
            last: Some(last),
        }
    }
}

impl Body for Part {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.withheld > 0 && self.given.is_end_stream() {
            if let Some(last) = &self.last {
                last.given();
            }
            // Needs no waker: the connection ends with its flush.
            return Poll::Pending;
        }
        Pin::new(&mut self.given).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.withheld == 0 && self.given.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let given = self.given.size_hint().lower();
        SizeHint::with_exact(given + self.withheld)
    }
}

/// hyper drops a body at its end, or at once if it sends none (HEAD, 204).
impl Drop for Part {
    fn drop(&mut self) {
        if let Some(last) = &self.last {
            last.given();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use http_body_util::BodyExt;

    #[test]
    fn half_a_body_is_announced_whole() {
        for bytes in [1, 2, 5, 614_400] {
            let last = LastByte::default();
            let mut body = Part::half(bytes, last.clone());
            assert_eq!(body.size_hint().exact(), Some(bytes));
            let mut given = 0;
            while let Some(frame) = body.frame().now_or_never() {
                assert!(!last.is_given());
                given += frame.unwrap().unwrap().into_data().unwrap().len() as u64;
            }
            assert_eq!(given, bytes / 2);
            assert!(last.is_given() && !body.is_end_stream());
        }
    }

    #[test]
    fn half_of_an_empty_body_is_whole() {
        assert!(Part::half(0, LastByte::default()).is_end_stream());
    }

    #[test]
    fn a_whole_body_tells_of_its_end() {
        let last = LastByte::default();
        let body = Part::whole_until(100_000, last.clone());
        let bytes = body.collect().now_or_never().unwrap().unwrap().to_bytes();
        assert_eq!(bytes.len(), 100_000);
        assert!(last.is_given());
    }
}
