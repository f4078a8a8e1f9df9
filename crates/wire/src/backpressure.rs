//! Holds a body back while its last piece is on its way to the kernel.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite};

use crate::{Wrapper, passes_through};

/// A flag that a body sets when it gives a piece, and that [`Flushes`] clears when the kernel has the piece.
///
/// A body that returns `Pending` while the flag is set bounds the bytes that hyper keeps: on its own hyper queues up to
/// 16 pieces, or 400 KiB, and each piece keeps the whole buffer it was read into. The body needs no waker: hyper polls
/// it again after each flush (`Dispatcher::poll_loop`). Clones share the flag.
#[derive(Debug, Clone, Default)]
pub struct Backpressure(Arc<AtomicBool>);

impl Backpressure {
    /// The body gave a piece.
    pub fn gave(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether the kernel has not got the last piece yet.
    pub fn is_on(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Clears a [`Backpressure`] at each flush: hyper flushes its connection when its own buffer is empty.
#[derive(Debug)]
pub struct Flushes<T> {
    io: T,
    backpressure: Backpressure,
}

impl<T> Flushes<T> {
    /// Wraps a connection that a body with this `backpressure` goes to.
    pub fn new(io: T, backpressure: Backpressure) -> Self {
        Self { io, backpressure }
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

    fn on_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.backpressure.0.store(false, Ordering::Relaxed);
        Pin::new(&mut self.io).poll_flush(cx)
    }
}

passes_through!([T] Flushes<T>);
