//! Limits of the waits on a connection: in time, and in the interim responses before a final one.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::message::{MAX_INTERIM, ResponseHead};
use crate::{Pipe, RequestEnd, SpliceRead, Wrapper, passes_through};

/// Sets a limit to the time between two successful operations, for reading and for sending.
///
/// The read limit counts only once the request has no more bytes to give ([`RequestEnd`]): a client that uploads
/// slowly is not the upstream's fault. The whole head of the final response must come within one read limit, however
/// many interim responses (1xx, RFC 9110 §15.2) come before it. Fails with [`io::ErrorKind::TimedOut`], and with
/// [`io::ErrorKind::InvalidData`] at more than 100 interim responses.
#[derive(Debug)]
pub struct Stall<T> {
    io: T,
    reading: Option<Reading>,
    sending: Limit,
}

/// The wait for a response.
#[derive(Debug)]
struct Reading {
    limit: Limit,
    request_end: RequestEnd,
    head: ResponseHead,
}

impl Reading {
    /// The request may be out: the wait for bytes of the response counts from then on.
    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if self.request_end.is_reached() {
            self.limit.poll_stalled(cx)
        } else {
            Poll::Pending
        }
    }

    /// Bytes came, or the end of the stream.
    fn came(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.head.feed(bytes);
        if self.head.interim_heads() > MAX_INTERIM {
            let why = format!("more than {MAX_INTERIM} interim responses");
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        if self.head.is_complete() {
            self.limit.moved();
        }
        Ok(())
    }
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
            reading: None,
            sending: Limit::new(limit),
        }
    }

    /// Limits the waits for a response as well, once `request_end` is reached.
    pub fn reading(self, limit: Duration, request_end: RequestEnd) -> Self {
        Self {
            reading: Some(Reading {
                limit: Limit::new(Some(limit)),
                request_end,
                head: ResponseHead::default(),
            }),
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
        let before = buf.filled().len();
        let result = Pin::new(&mut self.io).poll_read(cx, buf);
        let Some(reading) = &mut self.reading else {
            return result;
        };
        match result {
            Poll::Pending => reading.poll_stalled(cx).map(Err),
            Poll::Ready(Ok(())) => {
                let came = reading.came(&buf.filled()[before..]);
                if came.is_err() {
                    buf.set_filled(before);
                }
                Poll::Ready(came)
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
        }
    }

    fn on_write(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.io).poll_write_vectored(cx, bufs) {
            Poll::Pending => self.sending.poll_stalled(cx).map(Err),
            ready => {
                self.sending.moved();
                if let Some(reading) = &mut self.reading {
                    reading.limit.moved();
                }
                ready
            }
        }
    }

    fn on_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The request's last byte is out, and the read for the answer was polled before: the read's limit starts to
        // run here, and wakes the task.
        if let Some(reading) = &mut self.reading
            && let Poll::Ready(error) = reading.poll_stalled(cx)
        {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.io).poll_flush(cx)
    }
}

impl<T: SpliceRead> SpliceRead for Stall<T> {
    fn poll_splice(
        &mut self,
        cx: &mut Context<'_>,
        pipe: &Pipe,
        limit: usize,
    ) -> Poll<io::Result<usize>> {
        let result = self.io.poll_splice(cx, pipe, limit);
        let Some(reading) = &mut self.reading else {
            return result;
        };
        if result.is_pending() {
            return reading.poll_stalled(cx).map(Err);
        }
        reading.limit.moved();
        result
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
        (io.reading(READ, request_end.clone()), far)
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
    async fn the_final_head_must_come_within_the_limit_and_the_body_piece_by_piece() {
        const INTERIM: &[u8] = b"HTTP/1.1 100\r\n\r\n";
        let request_end = RequestEnd::default();
        let (near, mut far) = duplex(1024);
        let mut io = Stall::sending(near, Some(SEND)).reading(READ, request_end.clone());
        request_end.reach();
        io.flush().await.unwrap();
        let mut buf = [0; 1024];
        advance(READ / 2).await;
        far.write_all(b"HTTP/1.1 103 x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n")
            .await
            .unwrap();
        assert!(io.read(&mut buf).await.unwrap() > 0);
        for _ in 0..3 {
            assert!(io.read(&mut buf).now_or_never().is_none());
            advance(READ / 2).await;
            far.write_all(b"body").await.unwrap();
            assert!(io.read(&mut buf).await.unwrap() > 0);
        }

        let (mut io, mut far) = stalled(&request_end);
        io.flush().await.unwrap();
        let start = Instant::now();
        let interim = async {
            loop {
                far.write_all(INTERIM).await.unwrap();
                tokio::time::sleep(READ / 60).await;
            }
        };
        let read = async {
            while io.read(&mut buf).await? > 0 {}
            io::Result::Ok(())
        };
        let error =
            tokio::select! { read = read => read.unwrap_err(), () = interim => unreachable!() };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(start.elapsed().as_secs(), READ.as_secs());
    }

    #[tokio::test]
    async fn more_than_100_interim_responses_are_an_error_also_while_the_request_is_on_its_way() {
        let flood = b"HTTP/1.1 103 x\r\n\r\n".repeat(MAX_INTERIM);
        for (tail, is_error) in [
            ("HTTP/1.1 200 OK\r\n\r\n", false),
            ("HTTP/1.1 100\r\n\r\n", true),
        ] {
            let (near, mut far) = duplex(8192);
            let mut io = Stall::sending(near, Some(SEND)).reading(READ, RequestEnd::default());
            far.write_all(&flood).await.unwrap();
            far.write_all(tail.as_bytes()).await.unwrap();
            drop(far);
            let read = io.read_to_end(&mut Vec::new()).await;
            assert_eq!(read.is_err(), is_error, "{read:?}");
        }
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
