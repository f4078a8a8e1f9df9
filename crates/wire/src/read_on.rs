use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What to do when sending a request fails because the peer reset the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnWriteError {
    /// Go on reading: the answer may lie in the receive queue.
    #[default]
    ReadOn,
    /// The exchange has failed.
    GiveUp,
}

pin_project! {
    /// Goes on reading after a write failed with a reset, and gives the reset back where it belongs.
    ///
    /// The bytes that can't be sent any more are dropped. The failed write has used up the socket's error
    /// (`sock_error`), so that a later read would find the queued data and then a clean end. If the write said
    /// `ECONNRESET`, no FIN had come before the RST: the end is then reported as that reset. If it said
    /// `EPIPE`, a FIN had come first (`tcp_reset` in `CLOSE_WAIT`) and the end is a real one.
    #[derive(Debug)]
    pub struct ReadOn<T> {
        #[pin]
        io: T,
        policy: OnWriteError,
        broken: Option<io::ErrorKind>,
    }
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

impl<T: AsyncRead> AsyncRead for ReadOn<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.project();
        let before = buf.filled().len();
        let room = buf.remaining();
        ready!(this.io.poll_read(cx, buf))?;
        let eof = room > 0 && buf.filled().len() == before;
        match this.broken {
            Some(io::ErrorKind::ConnectionReset) if eof => Poll::Ready(Err(
                io::Error::from_raw_os_error(rustix::io::Errno::CONNRESET.raw_os_error()),
            )),
            _ => Poll::Ready(Ok(())),
        }
    }
}

impl<T: AsyncWrite> AsyncWrite for ReadOn<T> {
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
        let dropped = bufs.iter().map(|buf| buf.len()).sum();
        if this.broken.is_some() {
            return Poll::Ready(Ok(dropped));
        }
        match ready!(this.io.poll_write_vectored(cx, bufs)) {
            Err(error) if *this.policy == OnWriteError::ReadOn && is_reset(&error) => {
                *this.broken = Some(error.kind());
                Poll::Ready(Ok(dropped))
            }
            result => Poll::Ready(result),
        }
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
