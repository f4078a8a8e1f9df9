use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use rstlab_wire::queues;
use rustix::io::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::{Interest, Ready};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::sleep;

use super::target::Address;

/// Between two tries to connect to a unix socket whose queue is full.
const FULL_QUEUE: Duration = Duration::from_millis(1);

/// A connection whose every system call is ours: when it reads, how much room the kernel has, what it failed with.
#[derive(Debug)]
pub(super) struct Link {
    stream: Stream,
    /// A reset that came before we saw that we were connected: the next call tells it, as it would have without
    /// the look.
    early: Option<io::Error>,
    /// How long the connect took: on TCP, the way there and back.
    round_trip: Duration,
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Link {
    /// Connects; `receive_buffer` is what `SO_RCVBUF` is asked for.
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
                (Stream::Tcp(stream), early)
            }
            Address::Unix(path) => (Stream::Unix(unix(path).await?), None),
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

    /// Our end's port, on TCP.
    pub(super) fn local_port(&self) -> Option<u16> {
        match &self.stream {
            Stream::Tcp(stream) => Some(stream.local_addr().ok()?.port()),
            Stream::Unix(_) => None,
        }
    }

    /// Gives the kernel more room to receive.
    pub(super) fn widen(&self, bytes: usize) {
        // Without it the rest only comes more slowly.
        let _ = self.socket().set_recv_buffer_size(bytes);
    }

    pub(super) async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        match &self.stream {
            Stream::Tcp(stream) => stream.ready(interest).await,
            Stream::Unix(stream) => stream.ready(interest).await,
        }
    }

    /// `None` is a read that would have to wait.
    pub(super) fn try_read(&mut self, buf: &mut [u8]) -> Option<io::Result<usize>> {
        if let Some(error) = self.early.take() {
            return Some(Err(error));
        }
        settled(match &self.stream {
            Stream::Tcp(stream) => stream.try_read(buf),
            Stream::Unix(stream) => stream.try_read(buf),
        })
    }

    /// `None` is a write that would have to wait.
    pub(super) fn try_write(&mut self, bytes: &[u8]) -> Option<io::Result<usize>> {
        if let Some(error) = self.early.take() {
            return Some(Err(error));
        }
        settled(match &self.stream {
            Stream::Tcp(stream) => stream.try_write(bytes),
            Stream::Unix(stream) => stream.try_write(bytes),
        })
    }

    /// The first bytes that lie unread, left where they are. `None` is a look that would have to wait.
    pub(super) fn peek(&self, buf: &mut [u8]) -> Option<io::Result<usize>> {
        let peeked = rustix::net::recv(&*self.socket(), buf, rustix::net::RecvFlags::PEEK);
        settled(peeked.map(|(_, bytes)| bytes).map_err(io::Error::from))
    }

    /// Ends our side: a FIN.
    pub(super) fn half_close(&self) -> io::Result<()> {
        self.socket().shutdown(std::net::Shutdown::Write)
    }

    /// Takes the error out of the socket that no call has told yet (`SO_ERROR`).
    pub(super) fn take_error(&mut self) -> Option<io::Error> {
        let early = self.early.take();
        early.or_else(|| self.socket().take_error().ok().flatten())
    }

    /// Bytes that arrived and were not read.
    pub(super) fn unread(&self) -> u64 {
        match &self.stream {
            Stream::Tcp(stream) => queues::unread(stream),
            Stream::Unix(stream) => queues::unread(stream),
        }
        .unwrap_or(0)
    }

    /// Bytes written that the other kernel has not acknowledged.
    pub(super) fn unsent(&self) -> u64 {
        match &self.stream {
            Stream::Tcp(stream) => queues::unsent(stream),
            Stream::Unix(stream) => queues::unsent(stream),
        }
        .unwrap_or(0)
    }

    fn socket(&self) -> SockRef<'_> {
        match &self.stream {
            Stream::Tcp(stream) => SockRef::from(stream),
            Stream::Unix(stream) => SockRef::from(stream),
        }
    }
}

/// Connects. A connection that was reset before we looked was made all the same: whether the look or the reset is
/// first must not decide what is said of the server.
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
        // To a SYN the answer would have been ECONNREFUSED (tcp_reset in net/ipv4/tcp_input.c).
        Some(error) if is_reset(&error) => Ok((stream, Some(error))),
        Some(error) => Err(error),
        None => Ok((stream, None)),
    }
}

/// A reset of a connection that was made; `EPIPE` behind a FIN.
fn is_reset(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}

/// Connects once the listener's queue has room: without a wait, connect(2) says `EAGAIN` until then.
async fn unix(path: &Path) -> io::Result<UnixStream> {
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(FULL_QUEUE).await,
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
    async fn a_full_queue_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("server");
        let listener = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        listener.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        // Room for one that has not been accepted.
        listener.listen(0).unwrap();
        let address = Address::Unix(path);
        let _first = Link::connect(&address, None).await.unwrap();
        let (second, accepted) =
            tokio::join!(Link::connect(&address, None), async { listener.accept() });
        accepted.unwrap();
        second.unwrap();
    }

    #[tokio::test]
    async fn a_reset_before_we_look_is_told_by_the_next_call() {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        listener.bind(&any.into()).unwrap();
        listener.listen(8).unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap().as_socket().unwrap());
        let connecting = Link::connect(&address, None);
        tokio::pin!(connecting);
        // The handshake is over when the first poll returns; nobody has looked yet.
        assert!(
            poll_fn(|context| Poll::Ready(connecting.as_mut().poll(context).is_pending())).await
        );
        drop(listener);
        let mut link = connecting.await.unwrap();
        let error = link.try_write(b"GET").unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(link.try_read(&mut [0]).unwrap().unwrap(), 0);
        let refused = Link::connect(&address, None).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }
}
