use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use rstlab_wire::queues;
use socket2::SockRef;
use tokio::io::{Interest, Ready};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio::time::sleep;

use super::target::Address;

/// Between two tries to connect to a unix socket whose queue is full.
const FULL_QUEUE: Duration = Duration::from_millis(1);

/// A connection whose every system call is ours: when it reads, how much room the kernel has, what it failed with.
#[derive(Debug)]
pub(super) struct Link {
    stream: Stream,
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
        let stream = match address {
            Address::Tcp(address) => {
                let socket = match address {
                    SocketAddr::V4(_) => TcpSocket::new_v4(),
                    SocketAddr::V6(_) => TcpSocket::new_v6(),
                }?;
                if let Some(bytes) = receive_buffer {
                    // Before the connect: the window is announced with the SYN.
                    socket.set_recv_buffer_size(bytes)?;
                }
                let stream = socket.connect(*address).await?;
                // The second of two writes must not wait for the first one's ACK.
                stream.set_nodelay(true)?;
                Stream::Tcp(stream)
            }
            Address::Unix(path) => Stream::Unix(unix(path).await?),
        };
        Ok(Self {
            stream,
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
    pub(super) fn try_read(&self, buf: &mut [u8]) -> Option<io::Result<usize>> {
        settled(match &self.stream {
            Stream::Tcp(stream) => stream.try_read(buf),
            Stream::Unix(stream) => stream.try_read(buf),
        })
    }

    /// `None` is a write that would have to wait.
    pub(super) fn try_write(&self, bytes: &[u8]) -> Option<io::Result<usize>> {
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
    pub(super) fn take_error(&self) -> Option<io::Error> {
        self.socket().take_error().ok().flatten()
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
    use super::*;
    use socket2::{Domain, SockAddr, Socket, Type};

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
}
