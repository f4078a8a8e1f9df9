//! Servers that write exact bytes, for tests over real sockets.

// Each test file uses its own part.
#![allow(dead_code)]

pub(crate) mod schema;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rstlab_wire::{HeadEnd, queues};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// A server on a free port; a panic in one of its connections surfaces in [`Peer::finish`].
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<usize>,
}

impl Peer {
    /// Runs `serve` for each connection; it gets the connection's number, from 0.
    pub(crate) async fn start<F>(serve: impl Fn(TcpStream, usize) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            let mut count = 0;
            loop {
                tokio::select! {
                    () = stopped.cancelled() => break,
                    accepted = listener.accept() => {
                        connections.spawn(serve(accepted.unwrap().0, count));
                        count += 1;
                    }
                }
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
    pub(crate) async fn answering(bytes: impl AsRef<[u8]>, end: End) -> Self {
        let bytes: Arc<[u8]> = bytes.as_ref().into();
        Self::start(move |mut stream, _| {
            let bytes = Arc::clone(&bytes);
            async move {
                read_request(&mut stream).await.unwrap();
                stream.write_all(&bytes).await.unwrap();
                end.put(stream);
            }
        })
        .await
    }

    /// Waits for every connection; returns how many there were.
    pub(crate) async fn finish(self) -> usize {
        self.stop.cancel();
        soon(self.task).await.unwrap()
    }
}

/// Waits for what must come; far longer than it takes, so that a broken program fails instead of hanging.
pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    let limit = Duration::from_secs(60);
    timeout(limit, future).await.expect("it does not come")
}

/// How a server ends a connection.
#[derive(Clone, Copy)]
pub(crate) enum End {
    /// `close()`: a FIN, or a RST if bytes lie unread.
    Close,
    /// `SO_LINGER` 0: a RST.
    Reset,
}

impl End {
    pub(crate) fn put(self, stream: TcpStream) {
        match self {
            End::Close => drop(stream),
            End::Reset => rstlab_wire::close::abort(stream),
        }
    }
}

/// Reads a head and not a byte more; `None` is the end of the stream.
pub(crate) async fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut end = HeadEnd::default();
    let mut head = Vec::new();
    loop {
        let byte = [stream.read_u8().await.ok()?];
        head.push(byte[0]);
        if end.feed(&byte).is_some() {
            return Some(String::from_utf8(head).unwrap());
        }
    }
}

/// Reads a head and the body that its Content-Length announces; `None` is the end of the stream before that.
pub(crate) async fn read_request(stream: &mut TcpStream) -> Option<(String, usize)> {
    let head = read_head(stream).await?;
    let length = field(&head, "content-length").map_or(0, |value| value.parse().unwrap());
    let mut left = length;
    let mut buf = vec![0; 64 * 1024];
    while left > 0 {
        let most = left.min(buf.len());
        left -= stream.read_exact(&mut buf[..most]).await.ok()?;
    }
    Some((head, length))
}

/// The value of a head's field.
pub(crate) fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// Waits until so many bytes lie unread.
pub(crate) async fn until_unread(stream: &TcpStream, bytes: u64) {
    while queues::unread(stream).unwrap() < bytes {
        tokio::task::yield_now().await;
    }
}

/// Waits until the other side's kernel has every byte.
pub(crate) async fn until_sent(stream: &TcpStream) {
    while queues::unsent(stream).unwrap() > 0 {
        tokio::task::yield_now().await;
    }
}

/// A response whose Content-Length announces more than its body has.
pub(crate) fn cut(announced: usize, body: usize) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {announced}\r\n\r\n");
    [head.into_bytes(), vec![b'x'; body]].concat()
}
