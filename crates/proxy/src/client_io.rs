//! The client's connection as hyper sees it, and the signals between the tasks that serve a client.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use rstlab_wire::{Framing, Stall, Wrapper, passes_through};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// The signals between the connection, the service and the response bodies of one client.
#[derive(Debug)]
pub(crate) struct ClientSignals {
    /// The client's address.
    pub(crate) peer: SocketAddr,
    requests: AtomicU64,
    stopping: AtomicBool,
    end_with_reset: AtomicBool,
    unflushed: AtomicBool,
    flush: AtomicWaker,
}

impl ClientSignals {
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

    /// The connection must end with a RST: after a FIN the client would take a cut response for a whole one.
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

    /// The kernel has all bytes that hyper got.
    pub(crate) fn flushed(&self) {
        self.unflushed.store(false, Ordering::Relaxed);
        self.flush.wake();
    }

    /// Waits until the kernel has all bytes that hyper got.
    pub(crate) fn poll_flushed(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.flush.register(cx.waker());
        if self.unflushed.load(Ordering::Relaxed) {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    }
}

/// The client's connection as hyper sees it: requests that can be read in two ways are refused, flushes are signalled.
#[derive(Debug)]
pub(crate) struct ClientIo {
    io: Stall<TcpStream>,
    framing: Framing,
    signals: Arc<ClientSignals>,
}

impl ClientIo {
    pub(crate) fn new(io: Stall<TcpStream>, signals: Arc<ClientSignals>) -> Self {
        Self {
            io,
            framing: Framing::requests(),
            signals,
        }
    }

    pub(crate) fn into_inner(self) -> TcpStream {
        self.io.into_inner()
    }
}

impl Wrapper for ClientIo {
    type Inner = Stall<TcpStream>;

    fn inner(&mut self) -> &mut Stall<TcpStream> {
        &mut self.io
    }

    fn on_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.io).poll_read(cx, buf);
        if let Some(why) = self.framing.check(buf, before) {
            tracing::info!(client = %self.signals.peer, "refused: {why}");
        }
        result
    }

    fn on_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.io).poll_flush(cx);
        if result.is_ready() {
            // hyper flushes the stream once its own buffer is empty.
            self.signals.flushed();
        }
        result
    }

    /// Does nothing: the half-close is the first stage of the proxy's own close.
    fn on_shutdown(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

passes_through!([] ClientIo);
