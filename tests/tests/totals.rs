//! The labelled counters, the log's lines, any other taker, and the clients report the same ends of exchanges.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rstlab_lab::makes::load::{self, Extent, LoadPlan, LoadReport, Target};
use rstlab_proxy::ProxyConfig;
use rstlab_tests::{Peer, read_to_end, soon};
use rstlab_upstream::{Mode, UpstreamConfig};
use rstlab_wire::close;
use rstlab_witness::{Ended, Sources, Taker, Takers, Witness};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// Requests of each mode; there are five.
const REQUESTS: u64 = 400;

const MODES: [Mode; 5] = [
    Mode::Lazy,
    Mode::Drain,
    Mode::Abort,
    Mode::Truncate,
    Mode::Delay,
];

/// Clients that leave while the upstream thinks or in the middle of their bodies: so many of each way to leave.
const LEAVING: u64 = 25;

/// Requests that the proxy refuses, and the statuses of its answers.
const REFUSED: [(u16, &str); 5] = [
    (400, "GET / HTTP/1.1\r\n\r\n"),
    (400, "GET\r\n\r\n"),
    (
        400,
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nno\r\n",
    ),
    (
        413,
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999\r\n\r\n",
    ),
    (501, "CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\n\r\n"),
];

/// Counts of a taker that is not one of the programs'.
#[derive(Default)]
struct Counting {
    ends: AtomicU64,
    lost_bytes: AtomicU64,
}

/// The taker; the test keeps the counts.
struct SharedCounting(Arc<Counting>);

impl Taker for SharedCounting {
    fn take(&self, ended: &Arc<Ended>) {
        self.0.ends.fetch_add(1, Ordering::Relaxed);
        let lost = ended.lost_bytes().unwrap_or(0);
        self.0.lost_bytes.fetch_add(lost, Ordering::Relaxed);
    }
}

/// The log's lines of this process.
#[derive(Clone, Default)]
struct LogLines(Arc<Mutex<Vec<u8>>>);

impl Write for LogLines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl LogLines {
    /// How many connections the upstreams tell of.
    fn closed(&self) -> u64 {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let closed = text.lines().filter(|line| line.contains("\"peer_state\":"));
        closed.count() as u64
    }

    /// How many lines tell of an exchange, by cause, known, harm and phase.
    fn counted(&self) -> BTreeMap<[String; 4], u64> {
        let mut counts = BTreeMap::new();
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        for line in text.lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            if line.get("harm").is_some() {
                let fields = ["cause", "known", "harm", "phase"];
                let labels = fields.map(|name| line[name].as_str().unwrap_or("").to_owned());
                *counts.entry(labels).or_default() += 1;
            }
        }
        counts
    }
}

/// A proxy in front of an upstream in `mode`, and the report of clients that sent all requests.
async fn loaded(mode: Mode, of_upstream: Takers, takers: Takers) -> LoadReport {
    let listen = async || TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (upstream, proxy) = (listen().await, listen().await);
    let upstream_address = upstream.local_addr().unwrap();
    let target = Target::from(proxy.local_addr().unwrap());
    let config = UpstreamConfig {
        mode,
        close_delay: Duration::from_millis(50),
        ..UpstreamConfig::default()
    };
    let stop_upstream = CancellationToken::new();
    let upstream = tokio::spawn(rstlab_upstream::run(
        upstream,
        config.into(),
        of_upstream,
        Witness::default(),
        stop_upstream.clone(),
    ));
    let config = ProxyConfig {
        upstream: upstream_address.to_string(),
        gap: Duration::from_millis(1),
        ..ProxyConfig::default()
    };
    let witness = Witness::open(&Sources {
        port: upstream_address.port(),
        ..Sources::default()
    });
    let witness = witness.unwrap();
    let stop_proxy = CancellationToken::new();
    let proxy = tokio::spawn(rstlab_proxy::run(
        proxy,
        config.into(),
        takers,
        witness.clone(),
        stop_proxy.clone(),
    ));
    let plan = LoadPlan {
        extent: Extent::Requests(REQUESTS),
        connections: 4,
        body_bytes: Some(22),
        ..LoadPlan::new(target)
    };
    let report = load::run(&plan, |_| {}).await;
    stop_proxy.cancel();
    soon(proxy).await.unwrap().unwrap();
    stop_upstream.cancel();
    soon(upstream).await.unwrap().unwrap();
    witness.close().await;
    report
}

/// A proxy in front of an upstream that never answers, whose clients leave or are refused.
async fn disturbed(takers: Takers) {
    let upstream = Peer::silent().await;
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = proxy.local_addr().unwrap();
    let config = ProxyConfig {
        upstream: upstream.address.to_string(),
        ..ProxyConfig::default()
    };
    let stop = CancellationToken::new();
    let proxy = tokio::spawn(rstlab_proxy::run(
        proxy,
        config.into(),
        takers,
        Witness::default(),
        stop.clone(),
    ));
    let connect = async |bytes: &str| {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(bytes.as_bytes()).await.unwrap();
        client
    };
    for _ in 0..LEAVING {
        let get = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        let half = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf";
        close::abort(connect(get).await);
        close::abort(connect(half).await);
        drop(connect(half).await);
    }
    for (status, request) in REFUSED {
        let answer = read_to_end(&mut connect(request).await).await;
        assert_eq!(answer.status(), status, "{request}");
    }
    stop.cancel();
    soon(proxy).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_log_takers_and_clients_agree_on_2000_mixed_requests_and_disturbed_ones() {
    let log = LogLines::default();
    let writer = log.clone();
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_writer(move || writer.clone())
        .init();
    let counting = Arc::new(Counting::default());
    let taker: Arc<dyn Taker> = Arc::new(SharedCounting(Arc::clone(&counting)));
    let takers = Takers::new([taker]);

    let of_upstreams = Takers::default();
    let running =
        MODES.map(|mode| tokio::spawn(loaded(mode, of_upstreams.clone(), takers.clone())));
    disturbed(takers.clone()).await;
    let mut reports = Vec::new();
    for one in running {
        reports.push(one.await.unwrap());
    }

    let summary = takers.totals().summary();
    let clients = |count: fn(&LoadReport) -> u64| reports.iter().map(count).sum::<u64>();
    let answered = REQUESTS * MODES.len() as u64;
    assert_eq!(clients(|report| report.requests), answered);
    assert_eq!(summary.left, 3 * LEAVING);
    assert_eq!(summary.refused, REFUSED.len() as u64);
    assert_eq!(summary.requests, answered + summary.left + summary.refused);
    assert_eq!(
        summary.requests,
        summary.whole + summary.truncated + summary.no_response + summary.left + summary.refused
    );
    assert_eq!(
        clients(|report| report.truncated.total()),
        summary.truncated
    );
    assert_eq!(clients(|report| report.status_5xx), summary.no_response);
    assert_eq!(clients(|report| report.lost_bytes), summary.lost_bytes);
    // Two modes cut by resets, another cuts every response by a FIN, and one resets after the response.
    assert!(
        summary.truncated > REQUESTS && summary.harmless > 0,
        "{summary:?}"
    );

    // What the clients got of what they sent, the upstreams do not know: only what they did not send is missing for sure.
    let upstreams = of_upstreams.totals().summary();
    assert_eq!(upstreams.requests, answered);
    assert_eq!((upstreams.truncated, upstreams.harmless), (REQUESTS, 0));
    assert_eq!(log.closed(), upstreams.requests);

    assert_eq!(counting.ends.load(Ordering::Relaxed), summary.requests);
    assert_eq!(
        counting.lost_bytes.load(Ordering::Relaxed),
        summary.lost_bytes
    );

    let mut counted: BTreeMap<[String; 4], u64> = BTreeMap::new();
    for (labels, total) in takers.totals().labelled() {
        let text = |text: Option<String>| text.unwrap_or_default();
        let labels = [
            text(labels.cause.map(|cause| cause.to_string())),
            text(labels.known.map(|known| known.to_string())),
            labels.outcome.harm().to_owned(),
            text(labels.phase.map(|phase| phase.to_string())),
        ];
        // The log has no line for an exchange that went well.
        if labels[0].is_empty() && labels[2] == "none" {
            continue;
        }
        *counted.entry(labels).or_default() += total.exchanges;
    }
    assert_eq!(counted, log.counted());
}
