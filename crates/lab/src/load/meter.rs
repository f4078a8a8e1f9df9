use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use rstlab_wire::{HeadEnd, Seen};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pin_project! {
    /// Notes in a [`Seen`] how far each request and response has come, from the bytes themselves.
    ///
    /// The HTTP library knows it too, but tells later: it may read a head and fail on the body in one go,
    /// and the failure would then be noted in the wrong phase. Requests follow each other without
    /// pipelining: the first write after a whole request begins the next one.
    #[derive(Debug)]
    pub(super) struct Meter<T> {
        #[pin]
        io: T,
        seen: Seen,
        body_bytes: u64,
        request: Request,
        response: Option<ResponseHead>,
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
            response: Some(ResponseHead::default()),
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

/// Finds the end of the final response's head: interim ones (1xx, RFC 9110 §15.2) may come before it.
#[derive(Debug, Default)]
struct ResponseHead {
    end: HeadEnd,
    read_bytes: usize,
    interim: bool,
}

impl ResponseHead {
    /// Where the status stands in `HTTP/1.1 200 OK`.
    const STATUS: usize = 9;

    /// Looks at the next bytes; true once the final head is complete.
    fn feed(&mut self, mut bytes: &[u8]) -> bool {
        loop {
            if let Some(at) = Self::STATUS.checked_sub(self.read_bytes)
                && let Some(digit) = bytes.get(at)
            {
                self.interim = *digit == b'1';
            }
            match self.end.feed(bytes) {
                None => {
                    self.read_bytes += bytes.len();
                    return false;
                }
                Some(_) if !self.interim => return true,
                Some(end) => {
                    bytes = &bytes[end..];
                    *self = Self::default();
                }
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
        let this = self.project();
        let before = buf.filled().len();
        ready!(this.io.poll_read(cx, buf))?;
        if let Some(head) = this.response
            && head.feed(&buf.filled()[before..])
        {
            this.seen.response_head();
            *this.response = None;
        }
        Poll::Ready(Ok(()))
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
            *this.response = Some(ResponseHead::default());
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    #[tokio::test]
    async fn the_phase_follows_the_bytes_of_each_request() {
        let seen = Seen::default();
        let (near, mut far) = duplex(4096);
        let mut meter = Meter::new(near, seen.clone(), 4);
        for _ in 0..2 {
            meter.write_all(b"POST / HTTP/1.1\r\n").await.unwrap();
            assert!(!seen.is_request_whole());
            assert_eq!(seen.phase(), Phase::SendingHead);
            meter.write_all(b"\r\nbo").await.unwrap();
            assert_eq!(seen.phase(), Phase::SendingBody);
            meter.write_all(b"dy").await.unwrap();
            assert_eq!(seen.phase(), Phase::Waiting);

            far.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            // The duplex stream is no Sensor: it counts no bytes, only the whole head shows.
            meter.read_exact(&mut [0; 19]).await.unwrap();
            assert_eq!(seen.phase(), Phase::ReadingBody);
            seen.response_whole();
            assert_eq!(seen.phase(), Phase::AfterResponse);
        }
    }

    #[test]
    fn an_interim_head_is_not_the_one_that_counts() {
        let bytes = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n";
        for piece in 1..bytes.len() {
            let mut head = ResponseHead::default();
            let mut pieces = bytes.chunks(piece);
            let last = pieces.next_back().unwrap();
            assert!(pieces.all(|piece| !head.feed(piece)), "pieces of {piece}");
            assert!(head.feed(last), "pieces of {piece}");
        }
    }
}
