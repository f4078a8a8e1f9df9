//! Notes the result of each system call on a connection.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{Account, Call, Pipe, Seen, SpliceRead, SysCall, Wrapper, passes_through};

/// Passes every call through and notes its result in a [`Seen`].
#[derive(Debug)]
pub struct Sensor<T, A = Seen> {
    io: T,
    account: A,
}

impl<T, A> Sensor<T, A> {
    /// Observes `io` from now on.
    pub fn new(io: T, account: A) -> Self {
        Self { io, account }
    }

    /// Ends the observation; returns the stream and the facts seen on it.
    pub fn into_parts(self) -> (T, A) {
        (self.io, self.account)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin, A: Account> Wrapper for Sensor<T, A> {
    type Inner = T;

    fn inner(&mut self) -> &mut T {
        &mut self.io
    }

    fn on_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let began = self.account.with(|seen| seen.tape.begin());
        let result = ready!(Pin::new(&mut self.io).poll_read(cx, buf));
        let bytes = &buf.filled()[before..];
        self.account.with(|seen| {
            let read = result.as_ref().map(|()| bytes.len() as u64);
            seen.tape.note(began, SysCall::Recv, read);
            match &result {
                Ok(()) => seen.read(bytes),
                Err(error) => seen.failed(Call::Recv, error),
            }
        });
        Poll::Ready(result)
    }

    fn on_write(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let began = self.account.with(|seen| seen.tape.begin());
        let result = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, bufs));
        self.account.with(|seen| {
            let written = result.as_ref().map(|bytes| *bytes as u64);
            seen.tape.note(began, SysCall::Writev, written);
            match &result {
                Ok(bytes) => seen.wrote(bufs, *bytes),
                Err(error) => seen.failed(Call::Writev, error),
            }
        });
        Poll::Ready(result)
    }
}

impl<T: SpliceRead, A: Account> SpliceRead for Sensor<T, A> {
    fn poll_splice(
        &mut self,
        cx: &mut Context<'_>,
        pipe: &Pipe,
        limit: usize,
    ) -> Poll<io::Result<usize>> {
        let began = self.account.with(|seen| seen.tape.begin());
        let result = ready!(self.io.poll_splice(cx, pipe, limit));
        self.account.with(|seen| {
            let spliced = result.as_ref().map(|bytes| *bytes as u64);
            seen.tape.note(began, SysCall::Splice, spliced);
            match &result {
                Ok(bytes) => seen.spliced(*bytes),
                Err(error) => seen.failed(Call::Splice, error),
            }
        });
        Poll::Ready(result)
    }
}

passes_through!([T; A: Account] Sensor<T, A>);
