use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use rstlab_wire::HeadEnd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Most fields that hyper takes; with more it answers 431 itself.
const MAX_FIELDS: usize = 100;

/// Whether a request's head has both `Content-Length` and `Transfer-Encoding`.
///
/// Such a request may be an attempt at smuggling; a server may refuse it (RFC 9112 §6.1). hyper drops the
/// `Content-Length` before anybody else can see it, so [`FramingCheck`] looks at the head itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ambiguous(Arc<AtomicBool>);

impl Ambiguous {
    /// Known as soon as hyper knows the request.
    pub(crate) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

pin_project! {
    /// Passes everything through and looks at the head of the first request.
    #[derive(Debug)]
    pub(crate) struct FramingCheck<T> {
        #[pin]
        io: T,
        ambiguous: Ambiguous,
        // Taken once the head is complete. Does not grow past hyper's own limit.
        head: Option<(HeadEnd, Vec<u8>)>,
    }
}

impl<T> FramingCheck<T> {
    pub(crate) fn new(io: T, ambiguous: Ambiguous) -> Self {
        Self {
            io,
            ambiguous,
            head: Some(Default::default()),
        }
    }

    pub(crate) fn into_inner(self) -> T {
        self.io
    }
}

impl<T: AsyncRead> AsyncRead for FramingCheck<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.project();
        let before = buf.filled().len();
        ready!(this.io.poll_read(cx, buf))?;
        let read = &buf.filled()[before..];
        if let Some((end, head)) = this.head {
            head.extend_from_slice(read);
            if end.feed(read).is_some() {
                this.ambiguous
                    .0
                    .store(has_both_lengths(head), Ordering::Relaxed);
                *this.head = None;
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Whatever else is wrong with the head, hyper finds it.
fn has_both_lengths(head: &[u8]) -> bool {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let parsed = request.parse(head);
    let has = |name: &str| {
        request
            .headers
            .iter()
            .any(|field| field.name.eq_ignore_ascii_case(name))
    };
    parsed.is_ok() && has("content-length") && has("transfer-encoding")
}

impl<T: AsyncWrite> AsyncWrite for FramingCheck<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.project().io.poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.project().io.poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().io.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().io.poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    async fn ambiguous(pieces: [&[u8]; 2]) -> bool {
        let ambiguous = Ambiguous::default();
        let io = pieces[0].chain(pieces[1]);
        let mut check = FramingCheck::new(io, ambiguous.clone());
        let mut read = Vec::new();
        check.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, pieces.concat());
        ambiguous.get()
    }

    #[tokio::test]
    async fn finds_both_lengths_in_either_order_and_in_pieces() {
        let pieces: [&[u8]; 2] = [
            b"POST / HTTP/1.1\r\ncontent-LENGTH: 5\r\nTransfer-",
            b"Encoding: chunked\r\n\r\n0\r\n\r\n",
        ];
        assert!(ambiguous(pieces).await);
        let pieces: [&[u8]; 2] = [
            b"POST / HTTP/1.1\nTransfer-Encoding: chunked\nContent-Length: 0\n\n",
            b"0\r\n\r\n",
        ];
        assert!(ambiguous(pieces).await);
    }

    #[tokio::test]
    async fn one_length_is_sound_whatever_the_body_says() {
        let body = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        let pieces: [&[u8]; 2] = [b"POST / HTTP/1.1\r\nContent-Length: 49\r\n\r\n", body];
        assert!(!ambiguous(pieces).await);
        assert!(!ambiguous([b"GET / HTTP/1.1\r\n", b""]).await);
    }
}
