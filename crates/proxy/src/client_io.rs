//! The client's connection as hyper sees it, and the signals between the tasks that serve a client.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use futures_util::task::AtomicWaker;
use rstlab_wire::{
    Backpressure, ClientSlot, Framing, GATHER_BYTES, GATHERED_READ_BYTES, PipeOut, Stall, Wrapper,
    passes_through, poll_read_up_to,
};
use tokio::io::{AsyncWrite, ReadBuf};

use crate::watched_socket::WatchedSocket;

/// The signals between the connection, the service and the response bodies of one client.
#[derive(Debug)]
pub(crate) struct ClientSignals {
    /// The client's address.
    pub(crate) peer: SocketAddr,
    requests: AtomicU64,
    end_with_reset: AtomicBool,
    left: AtomicBool,
    unflushed: AtomicBool,
    flush: AtomicWaker,
    /// Of the bodies that go to the upstream.
    pub(crate) requests_out: Backpressure,
    /// Of the bodies that go to the client.
    pub(crate) responses: Backpressure,
    pub(crate) pipe: PipeOut,
}

impl ClientSignals {
    pub(crate) fn new(peer: SocketAddr) -> Self {
        Self {
            peer,
            requests: AtomicU64::new(0),
            end_with_reset: AtomicBool::new(false),
            left: AtomicBool::new(false),
            unflushed: AtomicBool::new(false),
            flush: AtomicWaker::new(),
            requests_out: Backpressure::default(),
            responses: Backpressure::default(),
            pipe: PipeOut::default(),
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

    /// The connection must end with a RST: after a FIN the client would take a cut response for a whole one.
    pub(crate) fn end_with_reset(&self) {
        self.end_with_reset.store(true, Ordering::Relaxed);
    }

    /// Whether the connection must end with a RST.
    pub(crate) fn ends_with_reset(&self) -> bool {
        self.end_with_reset.load(Ordering::Relaxed)
    }

    /// The client left in the middle of its request: the connection ends without an answer.
    pub(crate) fn client_left(&self) {
        self.left.store(true, Ordering::Relaxed);
    }

    /// Whether the client left in the middle of its request.
    pub(crate) fn has_client_left(&self) -> bool {
        self.left.load(Ordering::Relaxed)
    }

    /// hyper is about to get bytes to send.
    pub(crate) fn handed_over(&self) {
        self.unflushed.store(true, Ordering::Relaxed);
    }

    /// The kernel has all bytes that hyper got.
    pub(crate) fn flushed(&self) {
        self.unflushed.store(false, Ordering::Relaxed);
        self.responses.flushed();
        self.flush.wake();
    }

    /// Wakes the task when the kernel has all bytes that hyper got.
    pub(crate) fn wake_when_flushed(&self, cx: &Context<'_>) {
        self.flush.register(cx.waker());
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

/// The client's connection as hyper sees it: requests that can be read in two ways are refused, flushes are signalled,
/// and the client's slot knows whether the client is idle.
#[derive(Debug)]
pub(crate) struct ClientIo {
    io: Stall<WatchedSocket>,
    /// Bytes that were read before hyper was there.
    first: Vec<u8>,
    /// Number of the request that is read, and the bytes read since it began.
    request: (u64, usize),
    framing: Framing,
    signals: Arc<ClientSignals>,
    slot: Arc<ClientSlot>,
    /// hyper wants to read, and there was nothing to read.
    waits_for_bytes: bool,
}

impl ClientIo {
    pub(crate) fn new(
        io: Stall<WatchedSocket>,
        first: Vec<u8>,
        signals: Arc<ClientSignals>,
        slot: Arc<ClientSlot>,
    ) -> Self {
        Self {
            io,
            first,
            request: (0, 0),
            framing: Framing::requests(),
            signals,
            slot,
            waits_for_bytes: false,
        }
    }

    pub(crate) fn into_inner(self) -> WatchedSocket {
        self.io.into_inner()
    }

    fn read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.first.is_empty() {
            let piece = self.first.len().min(buf.remaining());
            buf.put_slice(&self.first[..piece]);
            self.first.drain(..piece);
            if self.first.is_empty() {
                self.first = Vec::new();
            }
            return Poll::Ready(Ok(()));
        }
        let number = self.signals.requests();
        if self.request.0 != number {
            self.request = (number, 0);
        }
        let before = buf.filled().len();
        let limit = match self.request.1 {
            ..GATHER_BYTES => GATHERED_READ_BYTES,
            _ => self.signals.requests_out.read_limit(),
        };
        ready!(poll_read_up_to(&mut self.io, limit, cx, buf))?;
        self.request.1 += buf.filled().len() - before;
        Poll::Ready(Ok(()))
    }
}

impl Wrapper for ClientIo {
    type Inner = Stall<WatchedSocket>;

    fn inner(&mut self) -> &mut Stall<WatchedSocket> {
        &mut self.io
    }

    fn on_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = self.read(cx, buf);
        self.waits_for_bytes = result.is_pending();
        if buf.filled().len() > before {
            self.slot.busy();
        }
        if let Some(why) = self.framing.check(buf, before) {
            tracing::info!(client = %self.signals.peer, "refused: {why}");
        }
        result
    }

    fn on_write(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        if result.is_pending() {
            self.signals.responses.block();
        }
        result
    }

    fn on_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.io).poll_flush(cx);
        if result.is_ready() {
            // hyper flushes the stream once its own buffer is empty.
            self.signals.flushed();
            // Behind a whole request, hyper reads on only when the response is out.
            if self.waits_for_bytes && self.framing.is_between_messages() {
                self.slot.idle();
            }
        }
        result
    }
}

passes_through!([] ClientIo);
