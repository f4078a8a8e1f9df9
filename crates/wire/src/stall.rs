use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::Seen;

/// Sets a limit to the time between two successful operations, for reading and for sending.
///
/// The read limit counts only once the request is out ([`Seen::is_request_whole`]): a client that uploads
/// slowly is not the upstream's fault. Fails with [`io::ErrorKind::TimedOut`].
#[derive(Debug)]
pub struct Stall<T> {
    io: T,
    seen: Seen,
    reading: Limit,
    sending: Limit,
}

#[derive(Debug)]
struct Limit {
    time: Option<Duration>,
    // Boxed because hyper wants its connection `Unpin`.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Limit {
    fn new(time: Option<Duration>) -> Self {
        Self { time, timer: None }
    }

    /// Something moved: the next wait starts anew.
    fn moved(&mut self) {
        self.timer = None;
    }

    /// Nothing moves: starts the timer if it does not run, and waits for it.
    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let Some(time) = self.time else {
            return Poll::Pending;
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(time)));
        timer
            .as_mut()
            .poll(cx)
            .map(|()| io::ErrorKind::TimedOut.into())
    }
}

impl<T> Stall<T> {
    /// Limits the waits of `io`; `None` is no limit.
    pub fn new(io: T, seen: Seen, reading: Option<Duration>, sending: Option<Duration>) -> Self {
        Self {
            io,
            seen,
            reading: Limit::new(reading),
            sending: Limit::new(sending),
        }
    }

    /// The limited connection.
    pub fn into_inner(self) -> T {
        self.io
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Stall<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match Pin::new(&mut this.io).poll_read(cx, buf) {
            Poll::Pending if this.seen.is_request_whole() => this.reading.poll_stalled(cx).map(Err),
            Poll::Pending => Poll::Pending,
            ready => {
                this.reading.moved();
                ready
            }
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Stall<T> {
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
        let this = self.get_mut();
        match Pin::new(&mut this.io).poll_write_vectored(cx, bufs) {
            Poll::Pending => this.sending.poll_stalled(cx).map(Err),
            ready => {
                this.sending.moved();
                this.reading.moved();
                ready
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // The request's last byte is out and the read that waits for the answer was polled before: this is
        // where its limit starts to run, and where the task learns to wake for it.
        if this.seen.is_request_whole()
            && let Poll::Ready(error) = this.reading.poll_stalled(cx)
        {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::{Instant, advance};

    const READ: Duration = Duration::from_secs(60);
    const SEND: Duration = Duration::from_secs(30);

    fn stalled(seen: &Seen) -> (Stall<DuplexStream>, DuplexStream) {
        let (near, far) = duplex(16);
        (Stall::new(near, seen.clone(), Some(READ), Some(SEND)), far)
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_peer_times_out_after_the_request_is_out() {
        let seen = Seen::default();
        let (mut io, mut far) = stalled(&seen);
        seen.request_whole();
        let start = Instant::now();
        far.write_all(b"a").await.unwrap();
        io.read_u8().await.unwrap();
        let error = io.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(start.elapsed().as_secs(), READ.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn while_the_request_is_on_its_way_it_does_not() {
        let seen = Seen::default();
        let (mut io, _far) = stalled(&seen);
        assert!(io.read_u8().now_or_never().is_none());
        advance(READ * 2).await;
        assert!(io.read_u8().now_or_never().is_none());
        // Nor if the answer has begun: the peer may wait for the rest of a slow upload.
        seen.read(b"HTTP/1.1 200 OK\r\n");
        advance(READ * 2).await;
        assert!(io.read_u8().now_or_never().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_take_bytes_times_out() {
        let (mut io, _far) = stalled(&Seen::default());
        let start = Instant::now();
        let error = io.write_all(&[0; 17]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(start.elapsed().as_secs(), SEND.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn the_limit_starts_with_the_flush_of_the_last_byte() {
        let seen = Seen::default();
        let (mut io, _far) = stalled(&seen);
        assert!(io.read_u8().now_or_never().is_none());
        io.write_all(b"request").await.unwrap();
        seen.request_whole();
        io.flush().await.unwrap();
        advance(READ).await;
        let error = io.read_u8().now_or_never().unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
