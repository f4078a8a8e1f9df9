//! Time limits between two successful operations on a connection.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::{RequestEnd, Wrapper, passes_through};

/// Sets a limit to the time between two successful operations, for reading and for sending.
///
/// The read limit counts only once the request has no more bytes to give ([`RequestEnd`]): a client that uploads
/// slowly is not the upstream's fault. Fails with [`io::ErrorKind::TimedOut`].
#[derive(Debug)]
pub struct Stall<T> {
    io: T,
    request_end: RequestEnd,
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

    /// Bytes moved: the next wait starts anew.
    fn moved(&mut self) {
        self.timer = None;
    }

    /// No byte moves: starts the timer if it does not run, and waits for it.
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
    /// Limits the waits of `io` for the other side to take bytes; `None` is no limit.
    pub fn sending(io: T, limit: Option<Duration>) -> Self {
        Self {
            io,
            request_end: RequestEnd::default(),
            reading: Limit::new(None),
            sending: Limit::new(limit),
        }
    }

    /// Limits the waits for bytes to read as well, once `request_end` is reached.
    pub fn reading(self, limit: Option<Duration>, request_end: RequestEnd) -> Self {
        Self {
            request_end,
            reading: Limit::new(limit),
            ..self
        }
    }

    /// The limited connection.
    pub fn into_inner(self) -> T {
        self.io
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Wrapper for Stall<T> {
    type Inner = T;

    fn inner(&mut self) -> &mut T {
        &mut self.io
    }

    fn on_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.io).poll_read(cx, buf) {
            Poll::Pending if self.request_end.is_reached() => {
                self.reading.poll_stalled(cx).map(Err)
            }
            Poll::Pending => Poll::Pending,
            ready => {
                self.reading.moved();
                ready
            }
        }
    }

    fn on_write(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.io).poll_write_vectored(cx, bufs) {
            Poll::Pending => self.sending.poll_stalled(cx).map(Err),
            ready => {
                self.sending.moved();
                self.reading.moved();
                ready
            }
        }
    }

    fn on_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The request's last byte is out, and the read for the answer was polled before: the read's limit starts to
        // run here, and wakes the task.
        if self.request_end.is_reached()
            && let Poll::Ready(error) = self.reading.poll_stalled(cx)
        {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.io).poll_flush(cx)
    }
}

passes_through!([T] Stall<T>);

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::{Instant, advance};

    const READ: Duration = Duration::from_secs(60);
    const SEND: Duration = Duration::from_secs(30);

    fn stalled(request_end: &RequestEnd) -> (Stall<DuplexStream>, DuplexStream) {
        let (near, far) = duplex(16);
        let io = Stall::sending(near, Some(SEND));
        (io.reading(Some(READ), request_end.clone()), far)
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_peer_times_out_after_the_request_is_out() {
        let request_end = RequestEnd::default();
        let (mut io, mut far) = stalled(&request_end);
        request_end.reach();
        let start = Instant::now();
        far.write_all(b"a").await.unwrap();
        io.read_u8().await.unwrap();
        let error = io.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(start.elapsed().as_secs(), READ.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_peer_does_not_time_out_while_the_request_is_on_its_way() {
        let request_end = RequestEnd::default();
        let (mut io, mut far) = stalled(&request_end);
        assert!(io.read_u8().now_or_never().is_none());
        advance(READ * 2).await;
        assert!(io.read_u8().now_or_never().is_none());
        // The same if the answer has begun: the peer may wait for the rest of a slow upload.
        far.write_all(b"H").await.unwrap();
        io.read_u8().await.unwrap();
        advance(READ * 2).await;
        assert!(io.read_u8().now_or_never().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_take_bytes_times_out() {
        let (mut io, _far) = stalled(&RequestEnd::default());
        let start = Instant::now();
        let error = io.write_all(&[0; 17]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(start.elapsed().as_secs(), SEND.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn the_limit_starts_with_the_flush_of_the_last_byte() {
        let request_end = RequestEnd::default();
        let (mut io, _far) = stalled(&request_end);
        assert!(io.read_u8().now_or_never().is_none());
        io.write_all(b"request").await.unwrap();
        request_end.reach();
        io.flush().await.unwrap();
        advance(READ).await;
        let error = io.read_u8().now_or_never().unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
