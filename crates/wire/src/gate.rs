//! A server's side of a connection: limits the reads, and counts the bytes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{Framing, HeadEnd, Wrapper, passes_through};

/// Limit of one `recv(2)` until the head is complete: gunicorn's sync worker asks for as many bytes.
const RECV_BYTES: usize = 8192;

/// The bytes that may be read after the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    /// None. Body bytes that came with the head are read, the rest stays in the kernel.
    HeadOnly,
    /// All of them.
    Everything,
}

/// A server's side of a connection: limits the reads, and counts the bytes.
///
/// An HTTP library may poll for reads while a handler runs (hyper does, to see the peer leave); with
/// [`Reads::HeadOnly`] such a read waits forever and takes nothing out of the kernel. A request that can be read in two
/// ways is refused ([`Framing`]). Shutting down does nothing here: the close policy decides how
/// the connection ends.
#[derive(Debug)]
pub struct HeadGate<T> {
    io: T,
    reads: Reads,
    framing: Framing,
    head_end: HeadEnd,
    head_complete: bool,
    head_bytes: u64,
    body_bytes: u64,
}

impl<T> HeadGate<T> {
    /// Guards the reads of one request.
    pub fn new(io: T, reads: Reads) -> Self {
        Self {
            io,
            reads,
            framing: Framing::requests(),
            head_end: HeadEnd::default(),
            head_complete: false,
            head_bytes: 0,
            body_bytes: 0,
        }
    }

    /// Whether the whole head was read.
    pub fn is_head_complete(&self) -> bool {
        self.head_complete
    }

    /// Bytes of the head that were read.
    pub fn head_bytes(&self) -> u64 {
        self.head_bytes
    }

    /// Bytes after the head that were read, as they stood on the wire (chunk sizes included).
    pub fn body_bytes(&self) -> u64 {
        self.body_bytes
    }

    fn check(&mut self, buf: &mut ReadBuf<'_>, from: usize) {
        if let Some(why) = self.framing.check(buf, from) {
            tracing::debug!("refused: {why}");
        }
    }

    /// The connection, for the close policy.
    pub fn into_inner(self) -> T {
        self.io
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Wrapper for HeadGate<T> {
    type Inner = T;

    fn inner(&mut self) -> &mut T {
        &mut self.io
    }

    fn on_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let io = Pin::new(&mut self.io);
        if self.head_complete {
            return match self.reads {
                Reads::HeadOnly => Poll::Pending,
                Reads::Everything => {
                    let before = buf.filled().len();
                    ready!(io.poll_read(cx, buf))?;
                    self.body_bytes += (buf.filled().len() - before) as u64;
                    self.check(buf, before);
                    Poll::Ready(Ok(()))
                }
            };
        }

        let room = buf.remaining().min(RECV_BYTES);
        let mut piece = ReadBuf::new(buf.initialize_unfilled_to(room));
        ready!(io.poll_read(cx, &mut piece))?;
        let read = piece.filled();
        if let Some(end) = self.head_end.feed(read) {
            self.head_complete = true;
            self.head_bytes += end as u64;
            self.body_bytes += (read.len() - end) as u64;
        } else {
            self.head_bytes += read.len() as u64;
        }
        self.check(&mut piece, 0);
        let read = piece.filled().len();
        buf.advance(read);
        Poll::Ready(Ok(()))
    }

    /// The close policy decides how the connection ends.
    fn on_shutdown(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

passes_through!([T] HeadGate<T>);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queues::unread;
    use futures_util::FutureExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    async fn request(head: &[u8], body: &[u8], reads: Reads) -> HeadGate<TcpStream> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (server, _) = listener.accept().await.unwrap();
        client.write_all(head).await.unwrap();
        let mut gate = HeadGate::new(server, reads);
        gate.read_buf(&mut Vec::with_capacity(65536)).await.unwrap();
        client.write_all(body).await.unwrap();
        drop(client);
        gate
    }

    #[tokio::test]
    async fn with_reads_head_only_the_body_stays_in_the_kernel() {
        let mut gate = request(b"POST / HTTP/1.1\r\n\r\nearly", b"late", Reads::HeadOnly).await;
        gate.io.readable().await.unwrap();
        assert!(gate.read_u8().now_or_never().is_none());
        assert_eq!((gate.head_bytes(), gate.body_bytes()), (19, 5));
        assert_eq!(unread(gate.into_inner()).unwrap(), 4);
    }

    #[tokio::test]
    async fn with_reads_everything_the_body_is_read_and_counted() {
        let mut gate = request(b"POST / HTTP/1.1\r\n\r\nearly", b"late", Reads::Everything).await;
        gate.read_to_end(&mut Vec::new()).await.unwrap();
        assert_eq!((gate.head_bytes(), gate.body_bytes()), (19, 9));
    }

    #[tokio::test]
    async fn a_body_that_can_be_read_in_two_ways_is_refused() {
        let head = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        let mut gate = request(head, b"0\r\n\nGET / ", Reads::Everything).await;
        let mut read = Vec::new();
        gate.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"0\r\n\r\0\r\n\r\n");
    }

    #[tokio::test]
    async fn one_read_takes_as_many_bytes_as_gunicorn_s() {
        let long = [b"POST / HTTP/1.1\r\n".as_slice(), &[b'x'; 20_000]].concat();
        let gate = request(&long, b"", Reads::HeadOnly).await;
        assert_eq!(gate.head_bytes(), 8192);
    }
}
