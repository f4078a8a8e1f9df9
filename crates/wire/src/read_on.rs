//! Goes on reading after a failed write: the answer may lie in the receive queue.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{Pipe, SpliceRead, Wrapper, passes_through};

/// The policy for a request whose sending fails because the peer reset the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnWriteError {
    /// Go on reading: the answer may lie in the receive queue.
    #[default]
    ReadOn,
    /// The exchange has failed.
    GiveUp,
}

/// Goes on reading after a write failed with a reset, and reports the reset at the end of the queued bytes.
///
/// The bytes that can't be sent any more are dropped. The failed write has used up the socket's error
/// (`sock_error`), so that a later read would find the queued data and then a clean end. If the write failed with
/// `ECONNRESET`, no FIN had come before the RST, and the end is reported as that reset. If it failed with
/// `EPIPE`, a FIN had come first (`tcp_reset` in `CLOSE_WAIT`), and the end is clean.
#[derive(Debug)]
pub struct ReadOn<T> {
    io: T,
    policy: OnWriteError,
    broken: Option<io::ErrorKind>,
}

impl<T> ReadOn<T> {
    /// Wraps a connection; with [`OnWriteError::GiveUp`] nothing changes.
    pub fn new(io: T, policy: OnWriteError) -> Self {
        Self {
            io,
            policy,
            broken: None,
        }
    }

    /// The wrapped connection.
    pub fn into_inner(self) -> T {
        self.io
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Wrapper for ReadOn<T> {
    type Inner = T;

    fn inner(&mut self) -> &mut T {
        &mut self.io
    }

    fn on_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let room = buf.remaining();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        let eof = room > 0 && buf.filled().len() == before;
        match self.broken {
            Some(io::ErrorKind::ConnectionReset) if eof => Poll::Ready(Err(
                io::Error::from_raw_os_error(rustix::io::Errno::CONNRESET.raw_os_error()),
            )),
            _ => Poll::Ready(Ok(())),
        }
    }

    fn on_write(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let dropped = bufs.iter().map(|buf| buf.len()).sum();
        if self.broken.is_some() {
            return Poll::Ready(Ok(dropped));
        }
        match ready!(Pin::new(&mut self.io).poll_write_vectored(cx, bufs)) {
            Err(error) if self.policy == OnWriteError::ReadOn && is_reset(&error) => {
                self.broken = Some(error.kind());
                Poll::Ready(Ok(dropped))
            }
            result => Poll::Ready(result),
        }
    }
}

impl<T: SpliceRead> SpliceRead for ReadOn<T> {
    fn poll_splice(
        &mut self,
        cx: &mut Context<'_>,
        pipe: &Pipe,
        limit: usize,
    ) -> Poll<io::Result<usize>> {
        match ready!(self.io.poll_splice(cx, pipe, limit)) {
            Ok(0) if self.broken == Some(io::ErrorKind::ConnectionReset) => Poll::Ready(Err(
                io::Error::from_raw_os_error(rustix::io::Errno::CONNRESET.raw_os_error()),
            )),
            result => Poll::Ready(result),
        }
    }
}

passes_through!([T] ReadOn<T>);

fn is_reset(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::close;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    /// A peer that answers `hello` and then resets, in the kernel, with or without a FIN before it.
    async fn broken_connection(fin_first: bool, policy: OnWriteError) -> ReadOn<TcpStream> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        server.write_all(b"hello").await.unwrap();
        if fin_first {
            server.shutdown().await.unwrap();
            // The FIN is there once the stream ends after the five bytes.
            let mut five = [0; 6];
            while client.peek(&mut five).await.unwrap() < 5 {}
            close::abort(server);
        } else {
            client.write_all(b"unread").await.unwrap();
            server.readable().await.unwrap();
            drop(server);
        }
        // Loopback delivers the RST before close() returns.
        ReadOn::new(client, policy)
    }

    #[tokio::test]
    async fn the_queued_answer_is_read_and_then_the_reset() {
        let mut io = broken_connection(false, OnWriteError::ReadOn).await;
        io.write_all(b"body").await.unwrap();
        io.write_all(b"more body").await.unwrap();
        let mut read = Vec::new();
        let error = io.read_to_end(&mut read).await.unwrap_err();
        assert_eq!(read, b"hello");
        assert_eq!(error.raw_os_error(), Some(104));
    }

    #[tokio::test]
    async fn a_fin_before_the_reset_is_a_clean_end() {
        let mut io = broken_connection(true, OnWriteError::ReadOn).await;
        io.write_all(b"body").await.unwrap();
        let mut read = Vec::new();
        io.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"hello");
    }

    #[tokio::test]
    async fn giving_up_returns_the_error() {
        let mut io = broken_connection(false, OnWriteError::GiveUp).await;
        let error = io.write_all(b"body").await.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(104));
    }
}
