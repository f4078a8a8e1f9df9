//! A response's body that goes from the upstream's socket to the client's inside the kernel.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use rstlab_wire::{Pipe, ReadOn, Sensor, SpliceRead, Stall};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::client_io::ClientSignals;

/// An upstream connection whose request is out and whose response's head has been read.
pub(crate) type UpstreamIo = ReadOn<Stall<Sensor<TcpStream>>>;

/// Asks the driver of an upstream connection for the connection. The driver drops it if the connection has ended.
pub(crate) type Borrow = oneshot::Sender<Lent>;

/// The wish to borrow the connection, if it ever comes.
pub(crate) async fn borrowed(borrows: &mut Option<oneshot::Receiver<Borrow>>) -> Borrow {
    if let Some(wish) = borrows {
        let wish = wish.await;
        *borrows = None;
        if let Ok(borrow) = wish {
            return borrow;
        }
    }
    std::future::pending().await
}

/// An upstream connection that its driver has lent. Dropped, it goes back to the driver.
#[derive(Debug)]
pub(crate) struct Lent(Option<(UpstreamIo, oneshot::Sender<UpstreamIo>)>);

impl Lent {
    /// Lends `io`; the receiver gets it back.
    pub(crate) fn new(io: UpstreamIo) -> (Self, oneshot::Receiver<UpstreamIo>) {
        let (back, came_back) = oneshot::channel();
        (Self(Some((io, back))), came_back)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some((io, back)) = self.0.take() {
            // Fails only if the proxy ends and has dropped the driver.
            let _ = back.send(io);
        }
    }
}

/// A body of known length whose bytes go through a pipe, piece by piece; the first piece came with the head.
///
/// No more than the body is taken from the socket: what comes behind it stays there, and the pool finds it.
#[derive(Debug)]
pub(crate) struct Spliced {
    first: Bytes,
    left_bytes: u64,
    lent: Lent,
    pipe: Arc<Pipe>,
    signals: Arc<ClientSignals>,
}

impl Spliced {
    /// A body of `length` bytes that begins with `first`.
    pub(crate) fn new(
        first: Bytes,
        length: u64,
        lent: Lent,
        pipe: Pipe,
        signals: Arc<ClientSignals>,
    ) -> Self {
        Self {
            first,
            left_bytes: length,
            lent,
            pipe: Arc::new(pipe),
            signals,
        }
    }

    /// The bytes that have not been given.
    pub(crate) fn left_bytes(&self) -> u64 {
        self.left_bytes
    }

    /// The next piece: bytes, or the placeholder of what is in the pipe. The next one comes when the pipe is empty.
    pub(crate) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let piece = if self.first.is_empty() {
            match ready!(self.poll_filled(cx)) {
                Ok(piece) => piece,
                Err(error) => {
                    self.lent = Lent(None);
                    return Poll::Ready(Some(Err(error)));
                }
            }
        } else {
            std::mem::take(&mut self.first)
        };
        self.left_bytes -= piece.len() as u64;
        if self.left_bytes == 0 {
            self.lent = Lent(None);
        }
        // hyper may flush and not poll the body again (`Dispatcher::poll_loop`), and the sockets may have no news.
        self.signals.wake_when_flushed(cx);
        Poll::Ready((!piece.is_empty()).then_some(Ok(piece)))
    }

    /// Fills the pipe; an empty piece is the end of the body.
    fn poll_filled(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        if self.pipe.filled_bytes() > 0 {
            // The flush wakes.
            return Poll::Pending;
        }
        let Some((io, _)) = &mut self.lent.0 else {
            return Poll::Ready(Ok(Bytes::new()));
        };
        let limit = usize::try_from(self.left_bytes).unwrap_or(usize::MAX);
        if ready!(io.poll_splice(cx, &self.pipe, limit))? == 0 {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        self.signals.pipe.put(&self.pipe);
        Poll::Ready(Ok(self.pipe.placeholder()))
    }
}
