//! One connection between a test's client and the server's code, over the kernel's loopback.
// Each test file is a crate of its own and uses a part of this.
#![allow(dead_code, unreachable_pub)]
#![allow(clippy::unwrap_used)]

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rstlab_upstream::{Config, Mode, Summary, connection};
use rstlab_wire::Tape;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// More than the sockets' buffers hold (`tcp_wmem` and `tcp_rmem` end at 4 and 6 MiB): as long as the client
/// does not read, the server can't finish writing.
pub const LARGE: u64 = 32 * 1024 * 1024;

/// No exchange of these tests takes so long; a hang shall fail, not hang.
const NEVER: Duration = Duration::from_secs(50);

/// A client's end, and the server's code at work on the other.
pub struct Pair {
    pub client: TcpStream,
    server: JoinHandle<Summary>,
}

impl Pair {
    pub async fn new(config: Config) -> Self {
        let (client, stream) = connect().await;
        Self::serve(client, stream, config)
    }

    /// With a server's socket that holds about so many unsent bytes.
    pub async fn with_send_buffer(config: Config, bytes: usize) -> Self {
        let (client, stream) = connect().await;
        SockRef::from(&stream).set_send_buffer_size(bytes).unwrap();
        Self::serve(client, stream, config)
    }

    fn serve(client: TcpStream, stream: TcpStream, config: Config) -> Self {
        let server = connection(
            stream,
            Arc::new(config),
            CancellationToken::new(),
            Tape::default(),
        );
        Self {
            client,
            server: tokio::spawn(server),
        }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.client.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Reads at least one byte of the answer, and leaves it where it is.
    pub async fn answer_begins(&self) {
        assert_eq!(self.client.peek(&mut [0]).await.unwrap(), 1);
    }

    /// Reads to the end, clean or not.
    pub async fn read(&mut self) -> Read {
        let mut bytes = Vec::new();
        let end = timeout(NEVER, self.client.read_to_end(&mut bytes)).await;
        let end = end.expect("the client waits for the end of the stream");
        Read {
            bytes,
            end: end.map(drop),
        }
    }

    /// Closes the client's end and waits for the server's.
    pub async fn summary(self) -> Summary {
        let Pair { client, server } = self;
        drop(client);
        let summary = timeout(NEVER, server).await;
        summary.expect("the server's side ends").unwrap()
    }

    /// Waits for the server to close while the client stays.
    pub async fn closed_by_server(&mut self) -> Summary {
        let summary = timeout(NEVER, &mut self.server).await;
        summary.expect("the server closes by itself").unwrap()
    }
}

async fn connect() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let client = TcpStream::connect(address).await.unwrap();
    client.set_nodelay(true).unwrap();
    (client, listener.accept().await.unwrap().0)
}

/// What a client read, and how its stream ended.
pub struct Read {
    pub bytes: Vec<u8>,
    pub end: io::Result<()>,
}

impl Read {
    pub fn head(&self) -> String {
        let end = self.bytes.windows(4).position(|four| four == b"\r\n\r\n");
        String::from_utf8(self.bytes[..end.expect("a whole head")].to_vec()).unwrap()
    }

    pub fn status(&self) -> u16 {
        self.head()["HTTP/1.1 ".len()..][..3].parse().unwrap()
    }

    /// The value of a field that is there once.
    pub fn field(&self, name: &str) -> String {
        let head = self.head().to_lowercase();
        let values: Vec<&str> = head
            .lines()
            .filter_map(|line| line.strip_prefix(&format!("{name}: ")))
            .collect();
        assert_eq!(values.len(), 1, "{name} in {head}");
        values[0].to_owned()
    }

    pub fn body(&self) -> &[u8] {
        &self.bytes[self.head().len() + 4..]
    }

    pub fn errno(&self) -> Option<i32> {
        self.end.as_ref().err().and_then(io::Error::raw_os_error)
    }

    /// A whole response of `bytes` bytes of `x` and a clean end.
    pub fn assert_whole(&self, bytes: u64) {
        assert!(self.end.is_ok(), "{:?}", self.end);
        assert_eq!(self.field("content-length"), bytes.to_string());
        assert_eq!(self.body().len() as u64, bytes);
        assert!(self.body().iter().all(|byte| *byte == b'x'));
    }
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
