//! Wrappers of a connection: a wrapper implements the calls that it changes, the others pass through.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A connection around another one. [`passes_through!`](crate::passes_through) makes it readable and writable.
///
/// Every write is vectored, even of a single buffer: head and body stay in their own buffers, and strace shows one
/// call, `writev(2)`.
pub trait Wrapper {
    /// The connection inside.
    type Inner: AsyncRead + AsyncWrite + Unpin;

    /// The connection inside.
    fn inner(&mut self) -> &mut Self::Inner;

    /// As [`AsyncRead::poll_read`].
    ///
    /// # Errors
    /// As there.
    fn on_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.inner()).poll_read(cx, buf)
    }

    /// As [`AsyncWrite::poll_write_vectored`].
    ///
    /// # Errors
    /// As there.
    fn on_write(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(self.inner()).poll_write_vectored(cx, bufs)
    }

    /// As [`AsyncWrite::poll_flush`].
    ///
    /// # Errors
    /// As there.
    fn on_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.inner()).poll_flush(cx)
    }

    /// As [`AsyncWrite::poll_shutdown`].
    ///
    /// # Errors
    /// As there.
    fn on_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.inner()).poll_shutdown(cx)
    }
}

/// Makes a [`Wrapper`] readable and writable. The parameters of its type come first: the connection inside, then another
/// one with its bound. Examples: `passes_through!([T] Stall<T>)`, `passes_through!([T; A: Account] Sensor<T, A>)`.
#[macro_export]
macro_rules! passes_through {
    ([$($io:ident)? $(; $parameter:ident: $bound:path)?] $wrapper:ty) => {
        impl<$($io: ::tokio::io::AsyncRead + ::tokio::io::AsyncWrite + Unpin,)? $($parameter: $bound + Unpin)?>
            ::tokio::io::AsyncRead for $wrapper
        {
            fn poll_read(
                self: ::std::pin::Pin<&mut Self>,
                cx: &mut ::std::task::Context<'_>,
                buf: &mut ::tokio::io::ReadBuf<'_>,
            ) -> ::std::task::Poll<::std::io::Result<()>> {
                $crate::Wrapper::on_read(self.get_mut(), cx, buf)
            }
        }

        impl<$($io: ::tokio::io::AsyncRead + ::tokio::io::AsyncWrite + Unpin,)? $($parameter: $bound + Unpin)?>
            ::tokio::io::AsyncWrite for $wrapper
        {
            fn poll_write(
                self: ::std::pin::Pin<&mut Self>,
                cx: &mut ::std::task::Context<'_>,
                buf: &[u8],
            ) -> ::std::task::Poll<::std::io::Result<usize>> {
                $crate::Wrapper::on_write(self.get_mut(), cx, &[::std::io::IoSlice::new(buf)])
            }

            fn poll_write_vectored(
                self: ::std::pin::Pin<&mut Self>,
                cx: &mut ::std::task::Context<'_>,
                bufs: &[::std::io::IoSlice<'_>],
            ) -> ::std::task::Poll<::std::io::Result<usize>> {
                $crate::Wrapper::on_write(self.get_mut(), cx, bufs)
            }

            fn is_write_vectored(&self) -> bool {
                true
            }

            fn poll_flush(
                self: ::std::pin::Pin<&mut Self>,
                cx: &mut ::std::task::Context<'_>,
            ) -> ::std::task::Poll<::std::io::Result<()>> {
                $crate::Wrapper::on_flush(self.get_mut(), cx)
            }

            fn poll_shutdown(
                self: ::std::pin::Pin<&mut Self>,
                cx: &mut ::std::task::Context<'_>,
            ) -> ::std::task::Poll<::std::io::Result<()>> {
                $crate::Wrapper::on_shutdown(self.get_mut(), cx)
            }
        }
    };
}
