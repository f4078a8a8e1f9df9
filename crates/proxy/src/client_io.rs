use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use rstlab_wire::{Framing, Stall};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What the parts that serve one client connection tell each other.
#[derive(Debug)]
pub(crate) struct Link {
    /// The client's address.
    pub(crate) peer: SocketAddr,
    requests: AtomicU64,
    stopping: AtomicBool,
    end_with_reset: AtomicBool,
    unflushed: AtomicBool,
    flush: AtomicWaker,
}

impl Link {
    pub(crate) fn new(peer: SocketAddr) -> Self {
        Self {
            peer,
            requests: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
            end_with_reset: AtomicBool::new(false),
            unflushed: AtomicBool::new(false),
            flush: AtomicWaker::new(),
        }
    }

    /// A request came.
    pub(crate) fn request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// How many requests came.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// From now on each response is the connection's last.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Whether the next response is to be the last.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// The connection must not end with a FIN: the client would take a cut response for a whole one.
    pub(crate) fn end_with_reset(&self) {
        self.end_with_reset.store(true, Ordering::Relaxed);
    }

    /// Whether the connection must end with a RST.
    pub(crate) fn ends_with_reset(&self) -> bool {
        self.end_with_reset.load(Ordering::Relaxed)
    }

    /// hyper is about to get bytes to send.
    pub(crate) fn handed_over(&self) {
        self.unflushed.store(true, Ordering::Relaxed);
    }

    /// The kernel has all that hyper got.
    pub(crate) fn flushed(&self) {
        self.unflushed.store(false, Ordering::Relaxed);
        self.flush.wake();
    }

    /// Waits until the kernel has all that hyper got.
    pub(crate) fn poll_flushed(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.flush.register(cx.waker());
        if self.unflushed.load(Ordering::Relaxed) {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    }
}

/// The client's connection as hyper gets it: ambiguous requests spoiled, flushes reported.
#[derive(Debug)]
pub(crate) struct ClientIo {
    io: Stall<TcpStream>,
    framing: Framing,
    link: Arc<Link>,
}

impl ClientIo {
    pub(crate) fn new(io: Stall<TcpStream>, link: Arc<Link>) -> Self {
        Self {
            io,
            framing: Framing::default(),
            link,
        }
    }

    pub(crate) fn into_inner(self) -> TcpStream {
        self.io.into_inner()
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.io).poll_read(cx, buf);
        if self.framing.check(&mut buf.filled_mut()[before..]) {
            tracing::info!(client = %self.link.peer, "refused: {}", Framing::AMBIGUOUS);
        }
        result
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.io).poll_flush(cx);
        if result.is_ready() {
            // hyper flushes the stream once its own buffer is empty.
            self.link.flushed();
        }
        result
    }

    /// hyper is done and has flushed; the half-close is the first stage of our own closing.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
