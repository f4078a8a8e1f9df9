//! A proxy and an upstream in process that make resets of one kind, and the records of them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use rstlab_lab::makes::load::{self, Extent, LoadPlan, Target};
use rstlab_proxy::Writes;
use rstlab_tests::binary;
use rstlab_upstream::Mode;
use rstlab_witness::{
    Ended, Level, Pair, Record, Sources, Taker, Takers, Wants, Witness, ended_queue,
};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::kinds::Kind;

/// Longer than a response takes, shorter than the proxy watches.
const CLOSE_DELAY: Duration = Duration::from_millis(30);

/// The most rounds of requests until there are enough resets.
const ROUNDS: usize = 10;

/// Upstream and proxy in this process, each with a witness as in processes of their own.
pub(crate) struct Lab {
    kind: &'static Kind,
    proxy: SocketAddr,
    takers: Takers,
    witnesses: [Witness; 2],
    halves: mpsc::Receiver<Arc<Ended>>,
    stop_proxy: CancellationToken,
    stop_upstream: CancellationToken,
    running: [JoinHandle<std::io::Result<()>>; 2],
}

impl Lab {
    pub(crate) async fn start(kind: &'static Kind, level: Option<Level>) -> Self {
        let upstream = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port and a witness");
        let proxy = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port and a witness");
        let upstream_address = upstream.local_addr().expect("a port and a witness");
        let proxy_address = proxy.local_addr().expect("a port and a witness");
        let (queue, halves) = ended_queue("verdicts", 100_000, Wants::Records);
        let queue: Arc<dyn Taker> = Arc::new(queue);
        let takers = || Takers::new([Arc::clone(&queue)]);
        let witness = || {
            let sources = Sources {
                wanted: level,
                port: upstream_address.port(),
                for_records: true,
                ..Sources::default()
            };
            Witness::open(&sources).expect("a witness")
        };
        let witnesses = [witness(), witness()];
        let of_proxy = takers();
        let stop_proxy = CancellationToken::new();
        let stop_upstream = CancellationToken::new();
        let upstream = rstlab_upstream::run(
            upstream,
            rstlab_upstream::UpstreamConfig {
                mode: kind.mode,
                response_bytes: kind.response_bytes,
                close_delay: CLOSE_DELAY,
                program: Some(binary("rstlab-upstream")),
                ..rstlab_upstream::UpstreamConfig::default()
            }
            .into(),
            takers(),
            witnesses[0].clone(),
            stop_upstream.clone(),
        );
        let proxy = rstlab_proxy::run(
            proxy,
            rstlab_proxy::ProxyConfig {
                upstream: upstream_address.to_string(),
                writes: Writes::Split,
                gap: kind.gap,
                upstream_keepalive: kind.mode == Mode::IdleClose,
                // A kept connection stays with its worker.
                workers: NonZeroUsize::MIN,
                ..rstlab_proxy::ProxyConfig::default()
            }
            .into(),
            of_proxy.clone(),
            witnesses[1].clone(),
            stop_proxy.clone(),
        );
        Self {
            kind,
            proxy: proxy_address,
            takers: of_proxy,
            witnesses,
            halves,
            stop_proxy,
            stop_upstream,
            running: [tokio::spawn(upstream), tokio::spawn(proxy)],
        }
    }

    /// Sends requests until there were so many resets, `rate` a second at most; returns their records, each of both halves.
    pub(crate) async fn resets(
        mut self,
        count: usize,
        connections: usize,
        rate: Option<f64>,
    ) -> Vec<Record> {
        let plan = LoadPlan {
            extent: Extent::Requests(count as u64),
            connections,
            rate,
            body_bytes: self.kind.body_bytes,
            ..LoadPlan::new(Target::from(self.proxy))
        };
        // Not every request makes a reset: the body may come with the head, and the keep-alive race needs two requests.
        let mut rounds = 0;
        while self.made() < count as u64 {
            assert!(
                rounds < ROUNDS,
                "{}: {} resets",
                self.kind.name,
                self.made()
            );
            rounds += 1;
            load::run(&plan, |_| {}).await;
        }

        self.stop_proxy.cancel();
        self.stop_upstream.cancel();
        for task in self.running {
            task.await.expect("no panic").expect("it serves");
        }
        for witness in self.witnesses {
            witness.close().await;
        }
        let mut halves = Vec::new();
        while let Ok(ended) = self.halves.try_recv() {
            halves.extend(ended.record.as_deref().cloned());
        }
        let mut records = merged(halves);
        assert!(
            records.len() >= count,
            "{}: some are missing",
            self.kind.name
        );
        records.truncate(count);
        records
    }

    /// Connections that were reset, or ended too early.
    fn made(&self) -> u64 {
        let summary = self.takers.totals().summary();
        summary.resets.max(summary.truncated + summary.no_response)
    }
}

/// The proxy's halves, each with the upstream's of the same connection.
fn merged(halves: Vec<Record>) -> Vec<Record> {
    let (proxy, upstream): (Vec<_>, Vec<_>) = halves
        .into_iter()
        .partition(|half| half.evidence.client.is_some());
    let mut of_pair: HashMap<Pair, Vec<Record>> = HashMap::new();
    for half in upstream {
        of_pair.entry(half.pair()).or_default().push(half);
    }
    let whole = proxy.into_iter().map(|half| {
        let others = of_pair.get(&half.pair()).into_iter().flatten();
        let mut merged = others.filter_map(|other| half.clone().merge(other.clone()).ok());
        merged
            .next()
            .unwrap_or_else(|| panic!("the upstream's half is missing: {half:?}"))
    });
    whole.collect()
}
