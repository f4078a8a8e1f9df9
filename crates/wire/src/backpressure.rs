//! Holds a body back while its last piece is on its way to the kernel.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{Wrapper, passes_through};

/// What a body, and whoever reads that body from a socket, have to know of the connection that the body goes to.
///
/// A body that returns `Pending` while its last piece is on the way bounds the bytes that hyper keeps: on its own hyper
/// queues up to 16 pieces, or 400 KiB, and each piece keeps the whole buffer it was read into. The body needs no waker:
/// hyper polls it again after each flush (`Dispatcher::poll_loop`). Clones share the state.
#[derive(Debug, Clone, Default)]
pub struct Backpressure(Arc<BackpressureState>);

#[derive(Debug, Default)]
struct BackpressureState {
    /// Pieces on their way; a large one counts twice.
    on_the_way: AtomicUsize,
    blocked: AtomicBool,
}

impl Backpressure {
    /// The body gave a piece of so many bytes.
    pub fn gave(&self, bytes: usize) {
        let pieces = if bytes < HELD_READ_BYTES { 1 } else { 2 };
        self.0.on_the_way.fetch_add(pieces, Ordering::Relaxed);
    }

    /// Whether the kernel has not got a large piece yet, or two small ones: the end of a short body is not held back.
    pub fn is_on(&self) -> bool {
        self.0.on_the_way.load(Ordering::Relaxed) > 1
    }

    /// The kernel takes no bytes.
    pub fn block(&self) {
        self.0.blocked.store(true, Ordering::Relaxed);
    }

    /// Whether the kernel has all bytes of all pieces.
    pub fn is_flushed(&self) -> bool {
        self.0.on_the_way.load(Ordering::Relaxed) == 0 && !self.0.blocked.load(Ordering::Relaxed)
    }

    /// The kernel has all bytes: hyper flushes its connection when its own buffer is empty.
    pub fn flushed(&self) {
        self.0.on_the_way.store(0, Ordering::Relaxed);
        self.0.blocked.store(false, Ordering::Relaxed);
    }

    /// The limit of one read of what comes for that connection.
    pub fn read_limit(&self) -> usize {
        match self.0.blocked.load(Ordering::Relaxed) {
            true => HELD_READ_BYTES,
            false => usize::MAX,
        }
    }
}

/// Limit of the bytes that are read ahead for a peer that takes none.
const HELD_READ_BYTES: usize = 16 * 1024;

/// Reads at most `limit` bytes.
///
/// # Errors
/// As [`AsyncRead::poll_read`].
pub fn poll_read_up_to(
    io: &mut (impl AsyncRead + Unpin),
    limit: usize,
    cx: &mut Context<'_>,
    buf: &mut ReadBuf<'_>,
) -> Poll<io::Result<()>> {
    if buf.remaining() <= limit {
        return Pin::new(io).poll_read(cx, buf);
    }
    let mut piece = ReadBuf::new(buf.initialize_unfilled_to(limit));
    ready!(Pin::new(io).poll_read(cx, &mut piece))?;
    let bytes = piece.filled().len();
    buf.advance(bytes);
    Poll::Ready(Ok(()))
}

/// Tells the [`Backpressure`] of what is written to a connection, and heeds that of what is read from it.
#[derive(Debug)]
pub struct Flushes<T> {
    io: T,
    written: Backpressure,
    read: Backpressure,
}

impl<T> Flushes<T> {
    /// Wraps a connection: `written` is of the body that goes to it, `read` of the body that comes from it.
    pub fn new(io: T, written: Backpressure, read: Backpressure) -> Self {
        Self { io, written, read }
    }

    /// The wrapped connection.
    pub fn into_inner(self) -> T {
        self.io
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Wrapper for Flushes<T> {
    type Inner = T;

    fn inner(&mut self) -> &mut T {
        &mut self.io
    }

    fn on_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        poll_read_up_to(&mut self.io, self.read.read_limit(), cx, buf)
    }

    fn on_write(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        if result.is_pending() {
            self.written.block();
        }
        result
    }

    fn on_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.written.flushed();
        Pin::new(&mut self.io).poll_flush(cx)
    }
}

passes_through!([T] Flushes<T>);
