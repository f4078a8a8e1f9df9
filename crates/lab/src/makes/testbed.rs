//! The testbed of `demo` and `trace`: upstream and proxy in this process, on free ports of 127.0.0.1.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use rstlab_witness::{Takers, Witness};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long `delay` waits: longer than a response takes, shorter than the proxy watches a connection (1 s).
pub(crate) const CLOSE_DELAY: Duration = Duration::from_millis(250);

/// The ports of a testbed, already open.
pub(crate) struct TestbedPorts {
    upstream: TcpListener,
    proxy: TcpListener,
}

/// An upstream and a proxy in front of it, both running.
pub(crate) struct Testbed {
    /// Where the proxy listens.
    pub(crate) address: SocketAddr,
    /// What takes the proxy's ends.
    pub(crate) takers: Takers,
    upstream: ServerTask,
    proxy: ServerTask,
}

struct ServerTask {
    stop: CancellationToken,
    task: JoinHandle<io::Result<()>>,
}

impl TestbedPorts {
    pub(crate) async fn open() -> anyhow::Result<Self> {
        let listen = |sndbuf| rstlab_cli::listen("no setting", "127.0.0.1:0", sndbuf);
        let sndbuf = rstlab_upstream::UpstreamConfig::default().sndbuf;
        Ok(Self {
            upstream: listen(sndbuf).await?,
            proxy: listen(None).await?,
        })
    }

    /// The upstream's address.
    pub(crate) fn upstream(&self) -> io::Result<SocketAddr> {
        self.upstream.local_addr()
    }

    /// Starts the upstream and the proxy in front of it, each with its settings, its witness, and what takes its ends.
    pub(crate) fn start(
        self,
        upstream: (rstlab_upstream::UpstreamConfig, Witness, Takers),
        proxy: (rstlab_proxy::ProxyConfig, Witness, Takers),
    ) -> anyhow::Result<Testbed> {
        let address = self.proxy.local_addr()?;
        let takers = proxy.2;
        let proxy_config = rstlab_proxy::ProxyConfig {
            upstream: self.upstream()?.to_string(),
            ..proxy.0
        };
        let stop = CancellationToken::new();
        let upstream = ServerTask {
            task: tokio::spawn(rstlab_upstream::run(
                self.upstream,
                upstream.0.into(),
                upstream.2,
                upstream.1,
                stop.clone(),
            )),
            stop,
        };
        let stop = CancellationToken::new();
        let proxy = ServerTask {
            task: tokio::spawn(rstlab_proxy::run(
                self.proxy,
                proxy_config.into(),
                takers.clone(),
                proxy.1,
                stop.clone(),
            )),
            stop,
        };
        Ok(Testbed {
            address,
            takers,
            upstream,
            proxy,
        })
    }
}

impl Testbed {
    /// Stops the proxy, then the upstream. Each has ten seconds to finish the requests that are under way.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        // The proxy watches its upstream connections until they end, so the upstream has to outlive it.
        self.proxy.stop.cancel();
        self.proxy.task.await.context("the proxy failed")??;
        self.upstream.stop.cancel();
        self.upstream.task.await.context("the upstream failed")??;
        Ok(())
    }
}
