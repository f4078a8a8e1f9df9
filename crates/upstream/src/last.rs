use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Says that a response's last byte has been handed to the HTTP library.
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

pin_project! {
    /// Takes the connection out of the library's hands once the last byte is in the kernel's.
    ///
    /// hyper flushes its connection when its own buffer is empty (`Buffered::poll_flush`): a flush that fails
    /// then ends its work with nothing held back and nothing read any more, in the middle of a response or
    /// between two requests.
    #[derive(Debug)]
    pub(crate) struct UntilLast<T> {
        #[pin]
        io: T,
        last: LastByte,
    }
}

impl<T> UntilLast<T> {
    pub(crate) fn new(io: T, last: LastByte) -> Self {
        Self { io, last }
    }

    pub(crate) fn into_inner(self) -> T {
        self.io
    }
}

impl<T: AsyncRead> AsyncRead for UntilLast<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.project().io.poll_read(cx, buf)
    }
}

impl<T: AsyncWrite> AsyncWrite for UntilLast<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.project().io.poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.project().io.poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.project();
        ready!(this.io.poll_flush(cx))?;
        Poll::Ready(if this.last.is_given() {
            Err(io::Error::other("the response's last byte is out"))
        } else {
            Ok(())
        })
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().io.poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    #[tokio::test]
    async fn a_flush_fails_only_after_the_last_byte() {
        let last = LastByte::default();
        let mut io = UntilLast::new(tokio::io::sink(), last.clone());
        io.write_all(b"response").await.unwrap();
        io.flush().await.unwrap();
        last.given();
        io.flush().await.unwrap_err();
    }
}
