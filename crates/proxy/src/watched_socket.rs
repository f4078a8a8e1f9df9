//! A client's socket, and the watch that meets the socket's RST while hyper owns the socket and does not read.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rstlab_wire::PipeOut;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// A client's socket: reads and writes as the [`TcpStream`] in it does.
#[derive(Debug)]
pub(crate) struct WatchedSocket {
    read: OwnedReadHalf,
    write: Arc<OwnedWriteHalf>,
    pipe: PipeOut,
}

/// Sees the errors of a [`WatchedSocket`].
#[derive(Debug)]
pub(crate) struct SocketWatch(Arc<OwnedWriteHalf>);

impl WatchedSocket {
    pub(crate) fn new(stream: TcpStream, pipe: PipeOut) -> (Self, SocketWatch) {
        let (read, write) = stream.into_split();
        let write = Arc::new(write);
        let watch = SocketWatch(Arc::clone(&write));
        (Self { read, write, pipe }, watch)
    }

    /// The stream, whose last owners are the socket and its watch.
    pub(crate) fn into_stream(self, watch: SocketWatch) -> Option<TcpStream> {
        drop(watch);
        Arc::into_inner(self.write).and_then(|write| self.read.reunite(write).ok())
    }
}

impl SocketWatch {
    /// Waits until the connection has failed: the client's RST sets the socket's error (`tcp_reset`), which epoll reports
    /// as `EPOLLERR` (`tcp_poll`). A FIN is no failure: the client may wait for its response.
    pub(crate) async fn failed(&self) {
        // An error here would come from a runtime that ends.
        let _ = self.0.ready(Interest::ERROR).await;
    }
}

impl AsRef<TcpStream> for SocketWatch {
    fn as_ref(&self) -> &TcpStream {
        self.0.as_ref().as_ref()
    }
}

impl AsyncRead for WatchedSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.read).poll_read(cx, buf)
    }
}

impl AsyncWrite for WatchedSocket {
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
        let stream: &TcpStream = self.write.as_ref().as_ref();
        loop {
            ready!(stream.poll_write_ready(cx))?;
            match self.pipe.try_write(stream, bufs) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Does nothing: the half-close is the first stage of the proxy's own close.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
