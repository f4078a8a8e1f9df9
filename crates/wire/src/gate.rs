use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{Framing, HeadEnd};

/// Most bytes of one `recv(2)` until the head is complete: gunicorn's sync worker asks for as many.
const RECV_BYTES: usize = 8192;

/// What is read after the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    /// Nothing. Body bytes that came with the head are read, the rest stays in the kernel.
    HeadOnly,
    /// Whatever is asked for.
    Everything,
}

pin_project! {
    /// A server's side of a connection: decides what may be read, and counts it.
    ///
    /// An HTTP library may poll for reads while a handler runs (hyper does, to see the peer leave); with
    /// [`Reads::HeadOnly`] such a read waits forever and pulls nothing out of the kernel. An ambiguous head is
    /// spoiled ([`Framing`]), so that the library refuses it. Shutting down does
    /// nothing here: how the connection ends is the close policy's affair.
    #[derive(Debug)]
    pub struct HeadGate<T> {
        #[pin]
        io: T,
        reads: Reads,
        framing: Framing,
        head_end: HeadEnd,
        head_complete: bool,
        head_bytes: u64,
        body_bytes: u64,
    }
}

impl<T> HeadGate<T> {
    /// Guards the reads of one request.
    pub fn new(io: T, reads: Reads) -> Self {
        Self {
            io,
            reads,
            framing: Framing::default(),
            head_end: HeadEnd::default(),
            head_complete: false,
            head_bytes: 0,
            body_bytes: 0,
        }
    }

    /// Bytes of the head that were read.
    pub fn head_bytes(&self) -> u64 {
        self.head_bytes
    }

    /// Bytes after the head that were read, as they stood on the wire (chunk sizes included).
    pub fn body_bytes(&self) -> u64 {
        self.body_bytes
    }

    /// The connection, for the close policy.
    pub fn into_inner(self) -> T {
        self.io
    }
}

impl<T: AsyncRead> AsyncRead for HeadGate<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.project();
        if *this.head_complete {
            return match this.reads {
                Reads::HeadOnly => Poll::Pending,
                Reads::Everything => {
                    let before = buf.filled().len();
                    ready!(this.io.poll_read(cx, buf))?;
                    *this.body_bytes += (buf.filled().len() - before) as u64;
                    Poll::Ready(Ok(()))
                }
            };
        }

        let room = buf.remaining().min(RECV_BYTES);
        let mut piece = ReadBuf::new(buf.initialize_unfilled_to(room));
        ready!(this.io.poll_read(cx, &mut piece))?;
        if this.framing.check(piece.filled_mut()) {
            tracing::info!("refused: {}", Framing::AMBIGUOUS);
        }
        let read = piece.filled();
        if let Some(end) = this.head_end.feed(read) {
            *this.head_complete = true;
            *this.head_bytes += end as u64;
            *this.body_bytes += (read.len() - end) as u64;
        } else {
            *this.head_bytes += read.len() as u64;
        }
        let read = read.len();
        buf.advance(read);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite> AsyncWrite for HeadGate<T> {
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
        self.project().io.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

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
    async fn after_the_head_the_body_stays_in_the_kernel() {
        let mut gate = request(b"POST / HTTP/1.1\r\n\r\nearly", b"late", Reads::HeadOnly).await;
        gate.io.readable().await.unwrap();
        assert!(gate.read_u8().now_or_never().is_none());
        assert_eq!((gate.head_bytes(), gate.body_bytes()), (19, 5));
        assert_eq!(unread(gate.into_inner()).unwrap(), 4);
    }

    #[tokio::test]
    async fn or_is_read_and_counted() {
        let mut gate = request(b"POST / HTTP/1.1\r\n\r\nearly", b"late", Reads::Everything).await;
        gate.read_to_end(&mut Vec::new()).await.unwrap();
        assert_eq!((gate.head_bytes(), gate.body_bytes()), (19, 9));
    }

    #[tokio::test]
    async fn one_read_takes_as_much_as_gunicorn_s() {
        let long = [b"POST / HTTP/1.1\r\n".as_slice(), &[b'x'; 20_000]].concat();
        let gate = request(&long, b"", Reads::HeadOnly).await;
        assert_eq!(gate.head_bytes(), 8192);
    }
}
