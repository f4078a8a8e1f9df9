//! The ways to close a connection.

use std::io::{self, Read as _};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use socket2::SockRef;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::{SysCall, Tape, queues};

/// How a server ends a connection after its last byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// `close()` at once. Unread bytes make the kernel send a RST (`tcp_close`), and so do bytes that come later.
    Immediate,
    /// Sleeps, then closes: moves the RST, does not prevent it.
    Delay(Duration),
    /// Staged close (RFC 9112 §9.6): half-close, read on within bounds, close.
    Linger(Bounds),
    /// `SO_LINGER {on, 0}`: a RST, whatever lies in the queues.
    Abort,
    /// Keeps the connection until something arrives, at most so long; then closes without reading it. Bytes
    /// that arrived make the kernel send a RST.
    OnArrival(Duration),
}

/// How long a lingering close reads on: until the peer closes, or one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Time since the half-close.
    pub time: Duration,
    /// Bytes read since the half-close; `None` is no bound.
    pub bytes: Option<u64>,
}

/// How the peer stood when the connection was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Peer {
    /// It had neither closed nor reset.
    Open,
    /// Its FIN had come.
    Closed,
    /// Its RST had come.
    Reset,
    /// It went on for longer than the time bound.
    TimeBound,
    /// It sent more than the bound of bytes.
    ByteBound,
}

impl Peer {
    /// All of them.
    pub const ALL: [Peer; 5] = [
        Peer::Open,
        Peer::Closed,
        Peer::Reset,
        Peer::TimeBound,
        Peer::ByteBound,
    ];

    /// As it stands in a log.
    pub fn as_str(self) -> &'static str {
        match self {
            Peer::Open => "open",
            Peer::Closed => "closed",
            Peer::Reset => "reset",
            Peer::TimeBound => "time-bound",
            Peer::ByteBound => "byte-bound",
        }
    }
}

/// A connection's last moment, taken right before `close()`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closed {
    /// Bytes that lay unread; more than zero makes the kernel send a RST.
    pub unread_bytes: u64,
    /// Bytes the peer had not acknowledged; what a RST destroys is in there.
    pub unsent_bytes: u64,
    /// Bytes read and thrown away by a lingering close.
    pub lingered_bytes: u64,
    /// How the peer stood.
    pub peer: Peer,
}

/// Ends a connection as `policy` says, and records how on `tape`.
pub async fn close(mut stream: TcpStream, policy: Policy, tape: &Tape) -> Closed {
    match policy {
        Policy::Immediate => last_moment(stream, 0, None, tape),
        Policy::Delay(time) => {
            sleep(time).await;
            last_moment(stream, 0, None, tape)
        }
        Policy::Linger(bounds) => {
            let (lingered, peer) = linger(&mut stream, bounds, tape).await;
            last_moment(stream, lingered, Some(peer), tape)
        }
        Policy::Abort => {
            let began = tape.begin();
            linger_zero(&stream);
            tape.note(began, SysCall::LingerZero, Ok(0));
            last_moment(stream, 0, None, tape)
        }
        Policy::OnArrival(limit) => {
            arrival(&stream, limit, tape).await;
            last_moment(stream, 0, None, tape)
        }
    }
}

/// Waits until something arrives, bytes, a FIN or a RST, at most so long, and leaves it where it is.
pub async fn arrival(stream: &TcpStream, limit: Duration, tape: &Tape) {
    let peeked = stream.async_io(Interest::READABLE, || peek(stream, tape));
    // How it arrived does not matter: the last moment tells.
    let _ = timeout(limit, peeked).await;
}

/// Ends a connection with a RST once the peer has acknowledged every byte, or after `limit`.
///
/// For a response that is cut and has no length: a FIN would tell the peer that it is whole.
pub async fn abort_when_sent(stream: TcpStream, limit: Duration) {
    let deadline = Instant::now() + limit;
    // The kernel has no event for an empty send queue.
    while Instant::now() < deadline && queues::unsent(&stream).is_ok_and(|bytes| bytes > 0) {
        sleep(Duration::from_millis(5)).await;
    }
    abort(stream);
}

/// Ends a connection with a RST: whatever is unsent is lost, and the peer can't take it for a clean end.
pub fn abort(stream: TcpStream) {
    linger_zero(&stream);
    drop(stream);
}

/// Makes the `close()` that follows a RST.
fn linger_zero(stream: &TcpStream) {
    // Fails only on a socket that is not connected any more: then there is nothing to abort.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// Looks at the queues, then closes.
fn last_moment(stream: TcpStream, lingered_bytes: u64, peer: Option<Peer>, tape: &Tape) -> Closed {
    let seen = look(&stream, tape);
    let began = tape.begin();
    drop(stream);
    tape.note(began, SysCall::Close, Ok(0));
    Closed {
        lingered_bytes,
        peer: peer.unwrap_or(seen.peer),
        ..seen
    }
}

/// How a connection stands right now, for whoever leaves the closing to the kernel.
///
/// Takes a pending error out of the socket.
pub fn look(stream: &TcpStream, tape: &Tape) -> Closed {
    let peer = peer_of(stream, tape);
    let began = tape.begin();
    let unsent = queues::unsent(stream);
    tape.note(began, SysCall::Unsent, unsent.as_ref().copied());
    // The last question before the close: what comes after it is not in the answer.
    let began = tape.begin();
    let unread = queues::unread(stream);
    tape.note(began, SysCall::Unread, unread.as_ref().copied());
    Closed {
        unread_bytes: unread.unwrap_or(0),
        unsent_bytes: unsent.unwrap_or(0),
        lingered_bytes: 0,
        peer,
    }
}

/// Asks the socket, without waiting and without taking bytes out of its queue.
fn peer_of(stream: &TcpStream, tape: &Tape) -> Peer {
    let began = tape.begin();
    let error = SockRef::from(stream).take_error();
    let told = match &error {
        Ok(None) => Ok(0),
        Ok(Some(error)) | Err(error) => Err(error),
    };
    tape.note(began, SysCall::SoError, told);
    if told.is_err() {
        return Peer::Reset;
    }
    match peek(stream, tape) {
        Ok(0) => Peer::Closed,
        Ok(_) => Peer::Open,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Peer::Open,
        Err(_) => Peer::Reset,
    }
}

/// How many bytes could be read: at most one, for one is asked for.
fn peek(stream: &TcpStream, tape: &Tape) -> io::Result<usize> {
    let mut byte = [std::mem::MaybeUninit::uninit()];
    let began = tape.begin();
    let peeked = SockRef::from(stream).peek(&mut byte);
    tape.note(began, SysCall::Peek, peeked.as_ref().map(|n| *n as u64));
    peeked
}

async fn linger(stream: &mut TcpStream, bounds: Bounds, tape: &Tape) -> (u64, Peer) {
    let deadline = Instant::now() + bounds.time;
    let began = tape.begin();
    let shut = stream.shutdown().await;
    tape.note(began, SysCall::Shutdown, shut.as_ref().map(|()| 0));
    if shut.is_err() {
        return (0, Peer::Reset);
    }
    let mut buf = vec![0; 16 * 1024];
    let mut read = 0;
    loop {
        let room = bounds
            .bytes
            .map_or(buf.len() as u64, |most| most.saturating_sub(read))
            .min(buf.len() as u64);
        if room == 0 {
            return (read, Peer::ByteBound);
        }
        let piece = &mut buf[..room as usize];
        let reading = stream.async_io(Interest::READABLE, || recv(stream, piece, tape));
        match timeout_at(deadline, reading).await {
            Err(_) => return (read, Peer::TimeBound),
            Ok(Ok(0)) => return (read, Peer::Closed),
            Ok(Ok(bytes)) => read += bytes as u64,
            Ok(Err(_)) => return (read, Peer::Reset),
        }
    }
}

fn recv(stream: &TcpStream, buf: &mut [u8], tape: &Tape) -> io::Result<usize> {
    let began = tape.begin();
    let read = (&*SockRef::from(stream)).read(buf);
    tape.note(began, SysCall::Recv, read.as_ref().map(|n| *n as u64));
    read
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (server, _) = listener.accept().await.unwrap();
        (client, server)
    }

    /// The server writes `answer` while `body` lies unread, and closes; what does the client read?
    async fn client_reads(policy: Policy, body: usize) -> (Closed, io::Result<usize>) {
        let (mut client, mut server) = pair().await;
        client.write_all(&vec![0; body]).await.unwrap();
        if body > 0 {
            server.readable().await.unwrap();
        }
        server.write_all(b"answer").await.unwrap();
        let closing = tokio::spawn(async move { close(server, policy, &Tape::default()).await });
        let mut answer = Vec::new();
        let read = client.read_to_end(&mut answer).await;
        drop(client);
        (closing.await.unwrap(), read)
    }

    #[tokio::test]
    async fn unread_bytes_turn_a_close_into_a_reset() {
        let (closed, read) = client_reads(Policy::Immediate, 22).await;
        assert_eq!((closed.unread_bytes, closed.peer), (22, Peer::Open));
        assert_eq!(read.unwrap_err().raw_os_error(), Some(104));
        let (closed, read) = client_reads(Policy::Immediate, 0).await;
        assert_eq!(closed.unread_bytes, 0);
        assert_eq!(read.unwrap(), 6);
    }

    #[tokio::test]
    async fn a_delay_does_not_prevent_it() {
        let (closed, read) = client_reads(Policy::Delay(Duration::from_millis(1)), 22).await;
        assert_eq!(closed.unread_bytes, 22);
        assert_eq!(read.unwrap_err().raw_os_error(), Some(104));
    }

    #[tokio::test]
    async fn lingering_within_the_bounds_does() {
        let bounds = Bounds {
            time: Duration::from_secs(60),
            bytes: Some(1000),
        };
        let (closed, read) = client_reads(Policy::Linger(bounds), 999).await;
        assert_eq!((closed.lingered_bytes, closed.peer), (999, Peer::Closed));
        assert_eq!(read.unwrap(), 6);
    }

    #[tokio::test]
    async fn lingering_ends_at_its_bounds() {
        let bounds = Bounds {
            time: Duration::from_secs(60),
            bytes: Some(1000),
        };
        let (closed, _) = client_reads(Policy::Linger(bounds), 1500).await;
        assert_eq!(closed.lingered_bytes, 1000);
        assert_eq!((closed.unread_bytes, closed.peer), (500, Peer::ByteBound));

        let (client, server) = pair().await;
        let bounds = Bounds {
            time: Duration::from_millis(1),
            bytes: None,
        };
        let closed = close(server, Policy::Linger(bounds), &Tape::default()).await;
        assert_eq!(closed.peer, Peer::TimeBound);
        drop(client);
    }

    #[tokio::test]
    async fn an_abort_is_a_reset_with_nothing_unread() {
        let (closed, read) = client_reads(Policy::Abort, 0).await;
        assert_eq!(closed.unread_bytes, 0);
        assert_eq!(read.unwrap_err().raw_os_error(), Some(104));
    }

    #[tokio::test]
    async fn on_arrival_the_bytes_stay_unread() {
        let policy = Policy::OnArrival(Duration::from_secs(60));
        let (closed, read) = client_reads(policy, 22).await;
        assert_eq!((closed.unread_bytes, closed.peer), (22, Peer::Open));
        assert_eq!(read.unwrap_err().raw_os_error(), Some(104));

        let (client, server) = pair().await;
        drop(client);
        assert_eq!(
            close(server, policy, &Tape::default()).await.peer,
            Peer::Closed
        );

        let (_client, server) = pair().await;
        let policy = Policy::OnArrival(Duration::from_millis(1));
        let closed = close(server, policy, &Tape::default()).await;
        assert_eq!((closed.unread_bytes, closed.peer), (0, Peer::Open));
    }

    #[tokio::test]
    async fn the_peer_s_end_is_seen() {
        let (client, server) = pair().await;
        drop(client);
        server.readable().await.unwrap();
        assert_eq!(
            close(server, Policy::Immediate, &Tape::default())
                .await
                .peer,
            Peer::Closed
        );

        let (client, server) = pair().await;
        abort(client);
        server.readable().await.unwrap();
        assert_eq!(
            close(server, Policy::Immediate, &Tape::default())
                .await
                .peer,
            Peer::Reset
        );
    }
}
