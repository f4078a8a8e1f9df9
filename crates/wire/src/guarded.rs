//! A client's side of a connection that refuses a response which can be read in two ways.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{Framing, Wrapper, passes_through};

/// A client's side of a connection that refuses a response which can be read in two ways ([`Framing`]).
#[derive(Debug)]
pub struct Guarded<T> {
    io: T,
    framing: Framing,
}

impl<T> Guarded<T> {
    /// Guards the reads of one response, to `HEAD` or to another method.
    pub fn new(io: T, to_head: bool) -> Self {
        Self {
            io,
            framing: Framing::response(to_head),
        }
    }

    /// Whether the response says that it is the connection's last (RFC 9112 §9.3).
    pub fn ends_connection(&self) -> bool {
        self.framing.ends_connection()
    }

    /// The connection inside.
    pub fn into_inner(self) -> T {
        self.io
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Wrapper for Guarded<T> {
    type Inner = T;

    fn inner(&mut self) -> &mut T {
        &mut self.io
    }

    fn on_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.io).poll_read(cx, buf);
        if let Some(why) = self.framing.check(buf, before) {
            tracing::info!("the upstream's response is refused: {why}");
        }
        result
    }
}

passes_through!([T] Guarded<T>);
