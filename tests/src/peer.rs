//! Servers on real sockets that do exactly what a test says.

use std::net::SocketAddr;
use std::sync::Arc;

use rstlab_wire::{close, queues};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{read_head, soon, try_read_head};

/// A server on a free port; it ends with the test. A panic in one of its connections surfaces in [`Peer::finish`].
#[derive(Debug)]
pub struct Peer {
    /// Where it listens.
    pub address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<usize>,
}

impl Peer {
    /// Runs `serve` for each connection; it gets the connection's number, from 0.
    ///
    /// # Panics
    /// There is no free port.
    pub async fn start<F>(mut serve: impl FnMut(TcpStream, usize) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            let mut count = 0;
            while let Some(accepted) = stopped.run_until_cancelled(listener.accept()).await {
                connections.spawn(serve(accepted.expect("accepts").0, count));
                count += 1;
            }
            connections.join_all().await;
            count
        });
        Self {
            address,
            stop,
            task,
        }
    }

    /// A server that reads each request wholly, writes `bytes` and then ends the connection.
    pub async fn answering(bytes: impl AsRef<[u8]>, end: PeerEnd) -> Self {
        let bytes: Arc<[u8]> = bytes.as_ref().into();
        Self::start(move |mut stream, _| {
            let bytes = Arc::clone(&bytes);
            async move {
                read_request(&mut stream).await.expect("a request");
                stream.write_all(&bytes).await.expect("sends");
                end.put(stream);
            }
        })
        .await
    }

    /// A server that reads everything and never answers.
    pub async fn silent() -> Self {
        Self::start(|mut stream, _| async move {
            // This server ends in the same way, however the client leaves.
            let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
        })
        .await
    }

    /// A server that reads a head, answers while `unread` bytes of the body lie there, and closes: the bug.
    pub async fn lazy(unread: u64, response: &'static [u8]) -> Self {
        Self::start(move |mut stream, _| async move {
            read_head(&mut stream).await;
            stream.write_all(response).await.expect("sends");
            until_unread(&stream, unread).await;
        })
        .await
    }

    /// Waits for every connection; returns how many there were.
    ///
    /// # Panics
    /// One of them panicked, or does not end.
    pub async fn finish(mut self) -> usize {
        self.stop.cancel();
        soon(&mut self.task).await.expect("no panic")
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How a server ends a connection.
#[derive(Debug, Clone, Copy)]
pub enum PeerEnd {
    /// `close()`: a FIN, or a RST if bytes lie unread.
    Close,
    /// `SO_LINGER` 0: a RST.
    Reset,
}

impl PeerEnd {
    /// Ends the connection.
    pub fn put(self, stream: TcpStream) {
        match self {
            PeerEnd::Close => drop(stream),
            PeerEnd::Reset => close::abort(stream),
        }
    }
}

/// Reads a head and the body that its Content-Length announces; `None` is the end of the stream before that.
///
/// # Panics
/// The length is no number.
pub async fn read_request(stream: &mut TcpStream) -> Option<(String, usize)> {
    let head = try_read_head(stream).await?;
    let length = content_length(&head);
    let mut left = length;
    let mut buf = vec![0; 64 * 1024];
    while left > 0 {
        let piece = left.min(buf.len());
        left -= soon(stream.read_exact(&mut buf[..piece])).await.ok()?;
    }
    Some((head, length))
}

/// The length of the body that a head announces; 0 if it announces none.
///
/// # Panics
/// The length is no number.
pub fn content_length(head: &str) -> usize {
    head_field(head, "content-length").map_or(0, |value| value.parse().expect("a number"))
}

/// The value of a head's field.
pub fn head_field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// Waits until at least so many bytes lie unread.
///
/// # Panics
/// The bytes do not come.
pub async fn until_unread(stream: &TcpStream, bytes: u64) {
    soon(async {
        while queues::unread(stream).expect("a socket") < bytes {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Waits until the other side's kernel has every byte.
///
/// # Panics
/// The other side's kernel does not take them.
pub async fn until_sent(stream: &TcpStream) {
    soon(async {
        while queues::unsent(stream).expect("a socket") > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// A response whose Content-Length may announce more than its body has.
pub fn cut(announced: usize, body: usize) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {announced}\r\n\r\n");
    [head.into_bytes(), vec![b'x'; body]].concat()
}
