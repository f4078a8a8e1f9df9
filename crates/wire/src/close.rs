//! The ways to close a connection.

use std::io::{self, Read as _};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use socket2::SockRef;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

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
    /// Keeps the connection until something arrives, for this time at most; then closes without reading. Bytes that
    /// arrived make the kernel send a RST.
    OnArrival(Duration),
}

/// The bounds of a lingering close: it reads on until the peer closes, or one of them is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Time since the half-close.
    pub time: Duration,
    /// Bytes read since the half-close; `None` is no bound.
    pub bytes: Option<u64>,
}

/// How the peer stood when the connection was closed.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
    strum::IntoStaticStr,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum Peer {
    /// The peer had neither closed nor reset.
    Open,
    /// The peer's FIN had come.
    Closed,
    /// The peer's RST had come.
    Reset,
    /// The peer went on for longer than the time bound.
    TimeBound,
    /// The peer sent more than the bound of bytes.
    ByteBound,
}

/// The state of a connection right before its `close()`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Closed {
    /// Bytes that lay unread; if there are any, the kernel sends a RST.
    pub unread_bytes: u64,
    /// Bytes the peer had not acknowledged; a RST destroys some of them.
    pub unsent_bytes: u64,
    /// Bytes read and thrown away by a lingering close.
    pub lingered_bytes: u64,
    /// How the peer stood.
    pub peer: Peer,
}

/// Ends a connection as `policy` says, and records how on `tape`. A wait ends when `hurry` is cancelled.
pub async fn close(
    mut stream: TcpStream,
    policy: Policy,
    tape: &mut Tape,
    hurry: &CancellationToken,
) -> Closed {
    match policy {
        Policy::Immediate => last_moment(stream, 0, None, tape),
        Policy::Delay(time) => {
            hurry.run_until_cancelled(sleep(time)).await;
            last_moment(stream, 0, None, tape)
        }
        Policy::Linger(bounds) => {
            let (lingered, peer) = linger(&mut stream, bounds, tape, hurry).await;
            last_moment(stream, lingered, Some(peer), tape)
        }
        Policy::Abort => {
            let began = tape.begin();
            linger_zero(&stream);
            tape.note(began, SysCall::LingerZero, Ok(0));
            last_moment(stream, 0, None, tape)
        }
        Policy::OnArrival(limit) => {
            hurry
                .run_until_cancelled(arrival(&stream, limit, tape))
                .await;
            last_moment(stream, 0, None, tape)
        }
    }
}

/// Waits for bytes, a FIN or a RST, for `limit` at most, and leaves them in the queue.
pub async fn arrival(stream: &TcpStream, limit: Duration, tape: &mut Tape) {
    let peeked = stream.async_io(Interest::READABLE, || peek(stream, tape));
    // The result does not matter: `look` asks the socket again before the close.
    let _ = timeout(limit, peeked).await;
}

/// Ends a connection with a RST once the peer has acknowledged every byte, or after `limit`.
///
/// For a cut response without a length: a FIN would tell the peer that the response is whole.
pub async fn abort_when_sent(stream: TcpStream, limit: Duration) {
    let deadline = Instant::now() + limit;
    // The kernel has no event for an empty send queue.
    while Instant::now() < deadline && queues::unsent(&stream).is_ok_and(|bytes| bytes > 0) {
        sleep(Duration::from_millis(5)).await;
    }
    abort(stream);
}

/// Ends a connection with a RST: unsent bytes are lost, and the peer can't take the end for a clean one.
pub fn abort(stream: TcpStream) {
    linger_zero(&stream);
    drop(stream);
}

/// Makes the kernel send a RST at the `close()`.
fn linger_zero(stream: &TcpStream) {
    // Fails only on a socket that is not connected any more: then there is nothing to abort.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// Looks at the connection, then closes it.
fn last_moment(
    stream: TcpStream,
    lingered_bytes: u64,
    peer: Option<Peer>,
    tape: &mut Tape,
) -> Closed {
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

/// Looks at the queues and the peer, and takes a pending error out of the socket.
pub fn look(stream: &TcpStream, tape: &mut Tape) -> Closed {
    let peer = peer_of(stream, tape);
    let began = tape.begin();
    let unsent = queues::unsent(stream);
    tape.note(began, SysCall::Unsent, unsent.as_ref().copied());
    // Asked last: bytes that arrive between this call and the close are missed.
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
fn peer_of(stream: &TcpStream, tape: &mut Tape) -> Peer {
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

/// Peeks at one byte: 1 if there is one, 0 after a FIN.
fn peek(stream: &TcpStream, tape: &mut Tape) -> io::Result<usize> {
    let mut byte = [std::mem::MaybeUninit::uninit()];
    let began = tape.begin();
    let peeked = SockRef::from(stream).peek(&mut byte);
    tape.note(began, SysCall::Peek, peeked.as_ref().map(|n| *n as u64));
    peeked
}

async fn linger(
    stream: &mut TcpStream,
    bounds: Bounds,
    tape: &mut Tape,
    hurry: &CancellationToken,
) -> (u64, Peer) {
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
        let in_time = timeout_at(deadline, reading);
        match hurry.run_until_cancelled(in_time).await {
            None | Some(Err(_)) => return (read, Peer::TimeBound),
            Some(Ok(Ok(0))) => return (read, Peer::Closed),
            Some(Ok(Ok(bytes))) => read += bytes as u64,
            Some(Ok(Err(_))) => return (read, Peer::Reset),
        }
    }
}

fn recv(stream: &TcpStream, buf: &mut [u8], tape: &mut Tape) -> io::Result<usize> {
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

    /// The server writes `answer` while `body` lies unread, and closes. Returns its close and the client's read.
    async fn client_reads(policy: Policy, body: usize) -> (Closed, io::Result<usize>) {
        let (mut client, mut server) = pair().await;
        client.write_all(&vec![0; body]).await.unwrap();
        if body > 0 {
            server.readable().await.unwrap();
        }
        server.write_all(b"answer").await.unwrap();
        let closing = tokio::spawn(async move {
            close(
                server,
                policy,
                &mut Tape::default(),
                &CancellationToken::new(),
            )
            .await
        });
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
    async fn a_delay_does_not_prevent_the_reset() {
        let (closed, read) = client_reads(Policy::Delay(Duration::from_millis(1)), 22).await;
        assert_eq!(closed.unread_bytes, 22);
        assert_eq!(read.unwrap_err().raw_os_error(), Some(104));
    }

    #[tokio::test]
    async fn lingering_within_the_bounds_prevents_the_reset() {
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
        let closed = close(
            server,
            Policy::Linger(bounds),
            &mut Tape::default(),
            &CancellationToken::new(),
        )
        .await;
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
        let closed = close(
            server,
            policy,
            &mut Tape::default(),
            &CancellationToken::new(),
        )
        .await;
        assert_eq!(closed.peer, Peer::Closed);

        let (_client, server) = pair().await;
        let policy = Policy::OnArrival(Duration::from_millis(1));
        let closed = close(
            server,
            policy,
            &mut Tape::default(),
            &CancellationToken::new(),
        )
        .await;
        assert_eq!((closed.unread_bytes, closed.peer), (0, Peer::Open));
    }

    #[tokio::test]
    async fn the_peer_s_end_is_seen() {
        for (end, peer) in [(drop as fn(_), Peer::Closed), (abort, Peer::Reset)] {
            let (client, server) = pair().await;
            end(client);
            server.readable().await.unwrap();
            let closed = close(
                server,
                Policy::Immediate,
                &mut Tape::default(),
                &CancellationToken::new(),
            )
            .await;
            assert_eq!(closed.peer, peer);
        }
    }
}
