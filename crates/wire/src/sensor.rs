use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{Call, Seen, SysCall, Tape};

pin_project! {
    /// Passes everything through and notes in a [`Seen`] what each call did.
    ///
    /// Every write goes out as `writev(2)`, a single buffer too: the log and strace then name one call.
    #[derive(Debug)]
    pub struct Sensor<T> {
        #[pin]
        io: T,
        seen: Seen,
        tape: Tape,
    }
}

impl<T> Sensor<T> {
    /// Observes `io` from now on.
    pub fn new(io: T, seen: Seen) -> Self {
        Self {
            io,
            seen,
            tape: Tape::default(),
        }
    }

    /// Records each call on `tape` too.
    pub fn taped(self, tape: Tape) -> Self {
        Self { tape, ..self }
    }

    /// Ends the observation and gives the stream back.
    pub fn into_inner(self) -> T {
        self.io
    }
}

impl<T: AsyncRead> AsyncRead for Sensor<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.project();
        let before = buf.filled().len();
        let began = this.tape.begin();
        let result = ready!(this.io.poll_read(cx, buf));
        let read = (buf.filled().len() - before) as u64;
        this.tape
            .note(began, SysCall::Recv, result.as_ref().map(|()| read));
        match &result {
            Ok(()) => this.seen.read(&buf.filled()[before..]),
            Err(error) => this.seen.failed(Call::Recv, error),
        }
        Poll::Ready(result)
    }
}

impl<T: AsyncWrite> AsyncWrite for Sensor<T> {
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
        let this = self.project();
        let began = this.tape.begin();
        let result = ready!(this.io.poll_write_vectored(cx, bufs));
        let written = result.as_ref().map(|bytes| *bytes as u64);
        this.tape.note(began, SysCall::Writev, written);
        match &result {
            Ok(bytes) => this.seen.wrote(*bytes),
            Err(error) => this.seen.failed(Call::Writev, error),
        }
        Poll::Ready(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().io.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().io.poll_shutdown(cx)
    }
}
