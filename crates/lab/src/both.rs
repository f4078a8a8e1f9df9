//! Upstream and proxy in this process, on free ports of 127.0.0.1.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use rstlab_proxy::Stats;
use rstlab_witness::Witness;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Their ports, open already.
pub(crate) struct Ports {
    upstream: TcpListener,
    proxy: TcpListener,
}

/// Both, running.
pub(crate) struct Both {
    /// Where the proxy listens.
    pub(crate) address: SocketAddr,
    pub(crate) stats: Arc<Stats>,
    upstream: Running,
    proxy: Running,
}

struct Running {
    stop: CancellationToken,
    task: JoinHandle<io::Result<()>>,
}

impl Ports {
    pub(crate) async fn open() -> anyhow::Result<Self> {
        let listen = || rstlab_cli::listen("no setting", "127.0.0.1:0");
        Ok(Self {
            upstream: listen().await?,
            proxy: listen().await?,
        })
    }

    /// The upstream's address.
    pub(crate) fn upstream(&self) -> io::Result<SocketAddr> {
        self.upstream.local_addr()
    }

    /// Starts both, the proxy in front of the upstream.
    pub(crate) fn start(
        self,
        upstream: (rstlab_upstream::Config, Witness),
        proxy: (rstlab_proxy::Config, Witness),
    ) -> anyhow::Result<Both> {
        let address = self.proxy.local_addr()?;
        let stats = Arc::new(Stats::default());
        let proxy_config = rstlab_proxy::Config {
            upstream: self.upstream()?.to_string(),
            ..proxy.0
        };
        let stop = CancellationToken::new();
        let upstream = Running {
            task: tokio::spawn(rstlab_upstream::run(
                self.upstream,
                upstream.0,
                upstream.1,
                stop.clone(),
            )),
            stop,
        };
        let stop = CancellationToken::new();
        let proxy = Running {
            task: tokio::spawn(rstlab_proxy::run(
                self.proxy,
                proxy_config,
                Arc::clone(&stats),
                proxy.1,
                stop.clone(),
            )),
            stop,
        };
        Ok(Both {
            address,
            stats,
            upstream,
            proxy,
        })
    }
}

impl Both {
    /// Stops both; what runs is finished, within ten seconds each.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        // The proxy first: it watches its upstream connections to their end.
        self.proxy.stop.cancel();
        self.proxy.task.await.context("the proxy failed")??;
        self.upstream.stop.cancel();
        self.upstream.task.await.context("the upstream failed")??;
        Ok(())
    }
}
