use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use rstlab_wire::{HeadEnd, Seen};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pin_project! {
    /// Notes in a [`Seen`] how far each request has come, from the bytes that the kernel took.
    ///
    /// Requests follow each other without pipelining: the first write after a whole one begins the next.
    #[derive(Debug)]
    pub(super) struct Meter<T> {
        #[pin]
        io: T,
        seen: Seen,
        body_bytes: u64,
        request: Request,
    }
}

#[derive(Debug)]
enum Request {
    Head(HeadEnd),
    Body { left_bytes: u64 },
    Whole,
}

impl<T> Meter<T> {
    /// Follows requests with a body of `body_bytes` each.
    pub(super) fn new(io: T, seen: Seen, body_bytes: u64) -> Self {
        Self {
            io,
            seen,
            body_bytes,
            request: Request::Head(HeadEnd::default()),
        }
    }
}

impl Request {
    /// Moves past bytes that the kernel took.
    fn wrote(&mut self, mut bytes: &[u8], body_bytes: u64, seen: &Seen) {
        if let Request::Head(head_end) = self {
            let Some(end) = head_end.feed(bytes) else {
                return;
            };
            seen.head_written();
            bytes = &bytes[end..];
            *self = Request::Body {
                left_bytes: body_bytes,
            };
        }
        if let Request::Body { left_bytes } = self {
            *left_bytes = left_bytes.saturating_sub(bytes.len() as u64);
            if *left_bytes == 0 {
                seen.request_whole();
                *self = Request::Whole;
            }
        }
    }
}

impl<T: AsyncRead> AsyncRead for Meter<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.project().io.poll_read(cx, buf)
    }
}

impl<T: AsyncWrite> AsyncWrite for Meter<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.project();
        if matches!(this.request, Request::Whole) {
            *this.request = Request::Head(HeadEnd::default());
            this.seen.next_request();
        }
        let written = ready!(this.io.poll_write_vectored(cx, bufs))?;
        let mut left = written;
        for buf in bufs {
            let part = &buf[..left.min(buf.len())];
            this.request.wrote(part, *this.body_bytes, this.seen);
            left -= part.len();
        }
        Poll::Ready(Ok(written))
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
    use rstlab_wire::Phase;
    use tokio::io::{AsyncWriteExt, duplex};

    #[tokio::test]
    async fn the_phase_follows_the_bytes_of_each_request() {
        let seen = Seen::default();
        let (near, _far) = duplex(4096);
        let mut meter = Meter::new(near, seen.clone(), 4);
        for _ in 0..2 {
            meter.write_all(b"POST / HTTP/1.1\r\n").await.unwrap();
            assert!(!seen.is_request_whole());
            assert_eq!(seen.phase(), Phase::SendingHead);
            meter.write_all(b"\r\nbo").await.unwrap();
            assert_eq!(seen.phase(), Phase::SendingBody);
            meter.write_all(b"dy").await.unwrap();
            assert_eq!(seen.phase(), Phase::Waiting);

            seen.response_whole();
            assert_eq!(seen.phase(), Phase::AfterResponse);
        }
    }
}
