//! One connection between a test's client and the server's code, over the kernel's loopback.
// Each test file is a crate of its own and uses a part of this module.
#![allow(dead_code, unreachable_pub)]
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use rstlab_tests::{Answer, read_to_end, soon};
use rstlab_upstream::{ConnectionEnd, Mode, UpstreamConfig as Config, connection};
use rstlab_wire::{StopOrder, Tape};
use socket2::SockRef;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// More than the sockets' buffers hold (`tcp_wmem` and `tcp_rmem` end at 4 and 6 MiB): as long as the client
/// does not read, the server can't finish writing.
pub const LARGE: u64 = 32 * 1024 * 1024;

/// A client's end, and the server's code at work on the other.
pub struct Pair {
    pub client: TcpStream,
    server: JoinHandle<ConnectionEnd>,
}

impl Pair {
    pub async fn new(config: Config) -> Self {
        let (client, stream) = connect().await;
        Self::serve(client, stream, config)
    }

    /// The server's socket holds about `bytes` unsent bytes.
    pub async fn with_send_buffer(config: Config, bytes: usize) -> Self {
        let (client, stream) = connect().await;
        SockRef::from(&stream).set_send_buffer_size(bytes).unwrap();
        Self::serve(client, stream, config)
    }

    fn serve(client: TcpStream, stream: TcpStream, config: Config) -> Self {
        Self {
            client,
            server: tokio::spawn(served(stream, config)),
        }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.client.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Waits for the first byte of the answer, and leaves it in the queue.
    pub async fn answer_begins(&self) {
        assert_eq!(soon(self.client.peek(&mut [0])).await.unwrap(), 1);
    }

    /// Reads to the end, clean or not.
    pub async fn read(&mut self) -> Answer {
        read_to_end(&mut self.client).await
    }

    /// Closes the client's end and waits for the server's.
    pub async fn summary(self) -> ConnectionEnd {
        let Pair { client, server } = self;
        drop(client);
        soon(server).await.unwrap()
    }

    /// Waits for the server to close while the client stays.
    pub async fn closed_by_server(&mut self) -> ConnectionEnd {
        soon(&mut self.server).await.unwrap()
    }
}

/// The server's code on one connection.
pub async fn served(stream: TcpStream, config: Config) -> ConnectionEnd {
    connection(
        stream,
        Arc::new(config),
        StopOrder::default(),
        Tape::default(),
    )
    .await
    .0
}

async fn connect() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let client = TcpStream::connect(address).await.unwrap();
    client.set_nodelay(true).unwrap();
    (client, listener.accept().await.unwrap().0)
}

pub fn mode(mode: Mode) -> Config {
    Config {
        mode,
        ..Config::default()
    }
}

pub fn post(bytes: u64) -> String {
    format!("POST /upload HTTP/1.1\r\nHost: test\r\nContent-Length: {bytes}\r\n\r\n")
}

/// A body as long as the article's.
pub const BODY: &[u8; 22] = b"the article's 22 bytes";
