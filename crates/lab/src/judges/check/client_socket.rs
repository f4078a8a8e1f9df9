//! The socket of a client of a check, on TCP or a unix socket.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use rstlab_wire::queues;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::{Interest, Ready};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::sleep;

use crate::shared::target::Address;

/// Time between two attempts to connect to a unix socket whose queue is full.
const RETRY_EVERY: Duration = Duration::from_millis(1);

/// A connection whose every system call the client chooses: when to read, how large the receive buffer is, which call
/// reports an error.
#[derive(Debug)]
pub(super) struct ClientSocket {
    stream: SocketStream,
    /// A reset that came before the client saw that it was connected: the next call reports it, as that call would have
    /// done if the client had not looked.
    early: Option<io::Error>,
    /// How long the connect took: on TCP, one round trip.
    round_trip: Duration,
}

#[derive(Debug)]
enum SocketStream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// The same expression for a stream of either kind.
macro_rules! on_stream {
    ($socket:ident, $stream:ident => $call:expr) => {
        match &$socket.stream {
            SocketStream::Tcp($stream) => $call,
            SocketStream::Unix($stream) => $call,
        }
    };
}

impl ClientSocket {
    /// Connects; `receive_buffer` is the size asked for with `SO_RCVBUF`, on TCP.
    ///
    /// # Errors
    /// As `connect(2)`.
    pub(super) async fn connect(
        address: &Address,
        receive_buffer: Option<u32>,
    ) -> io::Result<Self> {
        let began = Instant::now();
        let (stream, early) = match address {
            Address::Tcp(address) => {
                let (stream, early) = tcp(*address, receive_buffer).await?;
                (SocketStream::Tcp(stream), early)
            }
            Address::Unix(path) => (SocketStream::Unix(unix(path).await?), None),
        };
        Ok(Self {
            stream,
            early,
            round_trip: began.elapsed(),
        })
    }

    /// How long the connect took.
    pub(super) fn round_trip(&self) -> Duration {
        self.round_trip
    }

    /// The client's port, on TCP.
    pub(super) fn local_port(&self) -> Option<u16> {
        let address = self.socket().local_addr().ok()?;
        Some(address.as_socket()?.port())
    }

    /// Makes the receive buffer larger.
    pub(super) fn widen(&self, bytes: usize) {
        // If this fails, the rest only comes more slowly.
        let _ = self.socket().set_recv_buffer_size(bytes);
    }

    pub(super) async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        on_stream!(self, stream => stream.ready(interest).await)
    }

    /// `None` is a read that would have to wait.
    pub(super) fn try_read(&mut self, buf: &mut [u8]) -> Option<io::Result<usize>> {
        let early = self.early.take().map(Err);
        settled(early.unwrap_or_else(|| on_stream!(self, stream => stream.try_read(buf))))
    }

    /// `None` is a write that would have to wait.
    pub(super) fn try_write(&mut self, bytes: &[u8]) -> Option<io::Result<usize>> {
        let early = self.early.take().map(Err);
        settled(early.unwrap_or_else(|| on_stream!(self, stream => stream.try_write(bytes))))
    }

    /// The first unread bytes, which stay unread. `None` means that there are none yet.
    pub(super) fn peek(&self, buf: &mut [u8]) -> Option<io::Result<usize>> {
        let peeked = recv(&*self.socket(), buf, RecvFlags::PEEK);
        settled(peeked.map(|(_, bytes)| bytes).map_err(io::Error::from))
    }

    /// Ends the client's side with a FIN.
    pub(super) fn half_close(&self) -> io::Result<()> {
        self.socket().shutdown(Shutdown::Write)
    }

    /// Takes the error out of the socket that no call has reported yet (`SO_ERROR`).
    pub(super) fn take_error(&mut self) -> Option<io::Error> {
        let early = self.early.take();
        early.or_else(|| self.socket().take_error().ok().flatten())
    }

    /// Bytes that arrived and were not read.
    pub(super) fn unread(&self) -> u64 {
        on_stream!(self, stream => queues::unread(stream)).unwrap_or(0)
    }

    /// Bytes written that the other kernel has not acknowledged.
    pub(super) fn unsent(&self) -> u64 {
        on_stream!(self, stream => queues::unsent(stream)).unwrap_or(0)
    }

    fn socket(&self) -> SockRef<'_> {
        on_stream!(self, stream => SockRef::from(stream))
    }
}

/// Connects. A connection that was reset before the client looked was made all the same: the verdict on the server
/// must not depend on whether the look or the reset is first.
async fn tcp(
    address: SocketAddr,
    receive_buffer: Option<u32>,
) -> io::Result<(TcpStream, Option<io::Error>)> {
    let kind = Type::STREAM.nonblocking();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    if let Some(bytes) = receive_buffer {
        // Before the connect: the window is announced with the SYN.
        socket.set_recv_buffer_size(bytes as usize)?;
    }
    // The second of two writes must not wait for the first one's ACK.
    socket.set_tcp_nodelay(true)?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => {
            return Err(error);
        }
        _ => {}
    }
    let stream = TcpStream::from_std(socket.into())?;
    stream.writable().await?;
    match stream.take_error()? {
        // A reset in answer to the SYN would be ECONNREFUSED (tcp_reset in net/ipv4/tcp_input.c).
        Some(error) if is_reset(&error) => Ok((stream, Some(error))),
        Some(error) => Err(error),
        None => Ok((stream, None)),
    }
}

/// Whether the error is a reset of a connection that was made: `ECONNRESET`, or `EPIPE` after a FIN.
fn is_reset(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}

/// Connects once the listener's queue has room: until then a connect(2) that does not wait fails with `EAGAIN`.
async fn unix(path: &Path) -> io::Result<UnixStream> {
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(RETRY_EVERY).await,
            connected => return connected,
        }
    }
}

fn settled(result: io::Result<usize>) -> Option<io::Result<usize>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
        Err(error) if error.kind() == io::ErrorKind::Interrupted => None,
        result => Some(result),
    }
}

#[cfg(test)]
mod tests {
    use std::future::{Future, poll_fn};
    use std::task::Poll;

    use socket2::SockAddr;

    use super::*;

    #[tokio::test]
    async fn connecting_waits_while_the_queue_of_a_unix_socket_is_full() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("server");
        let listener = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        listener.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        // Room for one that has not been accepted.
        listener.listen(0).unwrap();
        let address = Address::Unix(path);
        let _first = ClientSocket::connect(&address, None).await.unwrap();
        let (second, accepted) = tokio::join!(ClientSocket::connect(&address, None), async {
            listener.accept()
        });
        accepted.unwrap();
        second.unwrap();
    }

    #[tokio::test]
    async fn a_reset_before_the_first_look_is_reported_by_the_next_call() {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        listener.bind(&any.into()).unwrap();
        listener.listen(8).unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap().as_socket().unwrap());
        let connecting = ClientSocket::connect(&address, None);
        tokio::pin!(connecting);
        // The handshake is over when the first poll returns; the client has not looked yet.
        assert!(
            poll_fn(|context| Poll::Ready(connecting.as_mut().poll(context).is_pending())).await
        );
        drop(listener);
        let mut link = connecting.await.unwrap();
        let error = link.try_write(b"GET").unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(link.try_read(&mut [0]).unwrap().unwrap(), 0);
        let refused = ClientSocket::connect(&address, None).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }
}
