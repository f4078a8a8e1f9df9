//! A proxy in process, and an upstream that writes exact bytes.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::log;
use rstlab_proxy::{Config, Stats, Summary, run};
use rstlab_wire::{HeadEnd, queues};
use rstlab_witness::Witness;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// No test waits longer than this for anything.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    stats: Arc<Stats>,
    stop: CancellationToken,
    running: JoinHandle<io::Result<()>>,
}

impl Proxy {
    pub(crate) async fn start(config: Config) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), config)
    }

    pub(crate) fn on(listener: TcpListener, config: Config) -> Self {
        log::set_up();
        let address = listener.local_addr().unwrap();
        let stats = Arc::new(Stats::default());
        let stop = CancellationToken::new();
        let running = tokio::spawn(run(
            listener,
            config,
            Arc::clone(&stats),
            Witness::default(),
            stop.clone(),
        ));
        Self {
            address,
            stats,
            stop,
            running,
        }
    }

    /// Starts a proxy in front of `upstream`, the other settings being the defaults.
    pub(crate) async fn in_front_of(upstream: &Upstream) -> Self {
        Self::start(upstream.config()).await
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends `request` on a fresh connection and reads to the end of the stream.
    pub(crate) async fn exchange(&self, request: impl AsRef<[u8]>) -> Answer {
        let mut stream = self.connect().await;
        stream.write_all(request.as_ref()).await.unwrap();
        read_to_end(&mut stream).await
    }

    pub(crate) fn begin_stop(&self) {
        self.stop.cancel();
    }

    /// Stops the proxy; returns what it counted.
    pub(crate) async fn stop(self) -> Summary {
        self.stop.cancel();
        timeout(LIMIT, self.running)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        self.stats.summary()
    }
}

/// What a client read until the stream ended, and how it ended.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) bytes: Vec<u8>,
    pub(crate) end: io::Result<()>,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    pub(crate) fn status(&self) -> u16 {
        let text = self.text();
        let status = text.split(' ').nth(1).unwrap_or_default();
        status
            .parse()
            .unwrap_or_else(|_| panic!("no status in {text:?}"))
    }

    /// What follows the first head.
    pub(crate) fn body(&self) -> &[u8] {
        let end = HeadEnd::default().feed(&self.bytes);
        &self.bytes[end.unwrap_or_else(|| panic!("no head in {:?}", self.text()))..]
    }
}

pub(crate) async fn read_to_end(stream: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    let end = timeout(LIMIT, stream.read_to_end(&mut bytes))
        .await
        .unwrap();
    Answer {
        bytes,
        end: end.map(drop),
    }
}

/// Reads until `stream` gave `count` bytes more.
pub(crate) async fn read_exactly(stream: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    timeout(LIMIT, stream.read_exact(&mut bytes))
        .await
        .unwrap()
        .unwrap();
    bytes
}

/// Reads one head, byte by byte, so that nothing behind it leaves the kernel.
pub(crate) async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut end = HeadEnd::default();
    loop {
        let byte = read_exactly(stream, 1).await;
        head.extend_from_slice(&byte);
        if end.feed(&byte).is_some() {
            return String::from_utf8(head).unwrap();
        }
    }
}

/// Waits until at least `count` bytes lie unread.
pub(crate) async fn wait_unread(stream: &TcpStream, count: u64) {
    timeout(LIMIT, async {
        while queues::unread(stream).unwrap() < count {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Upstream {
    /// Runs `serve` for each connection, one after the other.
    pub(crate) async fn start<F, Fut>(mut serve: F) -> Self
    where
        F: FnMut(TcpStream) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                serve(stream).await;
            }
        });
        Self { address, serving }
    }

    /// Reads a head and `body` bytes, then answers with `response` and closes.
    pub(crate) async fn answering(body: usize, response: &'static [u8]) -> Self {
        Self::start(move |mut stream| async move {
            read_head(&mut stream).await;
            read_exactly(&mut stream, body).await;
            stream.write_all(response).await.unwrap();
        })
        .await
    }

    /// Reads everything and never answers.
    pub(crate) async fn silent() -> Self {
        Self::start(|mut stream| async move {
            tokio::io::copy(&mut stream, &mut tokio::io::sink())
                .await
                .ok();
        })
        .await
    }

    /// Reads a head, answers while `unread` bytes of the body lie there, and closes: the bug.
    pub(crate) async fn lazy(unread: u64, response: &'static [u8]) -> Self {
        Self::start(move |mut stream| async move {
            read_head(&mut stream).await;
            stream.write_all(response).await.unwrap();
            wait_unread(&stream, unread).await;
        })
        .await
    }

    pub(crate) fn config(&self) -> Config {
        Config {
            upstream: self.address.to_string(),
            ..Config::default()
        }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
