//! Takes a connection from the HTTP library after a response's last byte.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use rstlab_wire::{Wrapper, passes_through};
use tokio::io::{AsyncRead, AsyncWrite};

/// A flag: a response's last byte has been handed to the HTTP library. Clones share the flag.
#[derive(Debug, Clone, Default)]
pub(crate) struct LastByte(Arc<AtomicBool>);

impl LastByte {
    pub(crate) fn given(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_given(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Ends the library's work on a connection once the kernel has the last byte.
///
/// hyper flushes its connection when its own buffer is empty (`Buffered::poll_flush`). A flush that fails at that moment
/// ends hyper's work with no byte held back and no further read, in the middle of a response or between two requests.
#[derive(Debug)]
pub(crate) struct UntilLast<T> {
    io: T,
    last: LastByte,
}

impl<T> UntilLast<T> {
    pub(crate) fn new(io: T, last: LastByte) -> Self {
        Self { io, last }
    }

    pub(crate) fn into_inner(self) -> T {
        self.io
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Wrapper for UntilLast<T> {
    type Inner = T;

    fn inner(&mut self) -> &mut T {
        &mut self.io
    }

    fn on_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        Poll::Ready(if self.last.is_given() {
            Err(io::Error::other("the response's last byte is out"))
        } else {
            Ok(())
        })
    }
}

passes_through!([T] UntilLast<T>);

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    #[tokio::test]
    async fn a_flush_fails_only_after_the_last_byte() {
        let last = LastByte::default();
        let mut io = UntilLast::new(tokio::io::empty(), last.clone());
        io.write_all(b"response").await.unwrap();
        io.flush().await.unwrap();
        last.given();
        io.flush().await.unwrap_err();
    }
}
