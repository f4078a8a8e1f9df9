//! A proxy in process.

use std::io;
use std::net::SocketAddr;

use crate::log;
use rstlab_proxy::{ProxyConfig as Config, run};
use rstlab_tests::{Answer, Peer, read_to_end, soon};
use rstlab_wire::StopOrder;
use rstlab_witness::{Summary, Takers, Witness};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    takers: Takers,
    stop: StopOrder,
    running: JoinHandle<io::Result<()>>,
}

impl Proxy {
    pub(crate) async fn start(config: Config) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), config)
    }

    pub(crate) fn on(listener: TcpListener, config: Config) -> Self {
        log::set_up();
        let address = listener.local_addr().unwrap();
        let takers = Takers::default();
        let stop = StopOrder::default();
        let running = tokio::spawn(run(
            listener,
            config.into(),
            takers.clone(),
            Witness::default(),
            stop.clone(),
        ));
        Self {
            address,
            takers,
            stop,
            running,
        }
    }

    /// Starts a proxy in front of `upstream`, the other settings being the defaults.
    pub(crate) async fn in_front_of(upstream: &Peer) -> Self {
        Self::start(config(upstream)).await
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
        self.stop.finish.cancel();
    }

    pub(crate) fn abandon(&self) {
        self.stop.abandon.cancel();
    }

    /// Stops the proxy; returns what it counted.
    pub(crate) async fn stop(self) -> Summary {
        self.stop.finish.cancel();
        soon(self.running).await.unwrap().unwrap();
        self.takers.totals().summary()
    }
}

/// The default settings, in front of `upstream`.
pub(crate) fn config(upstream: &Peer) -> Config {
    Config {
        upstream: upstream.address.to_string(),
        ..Config::default()
    }
}
