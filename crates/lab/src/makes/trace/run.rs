//! The run of `rstlab trace`: one request through the testbed, and the record of its upstream connection.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rstlab_cli::stop_on_signals;
use rstlab_proxy::Writes;
use rstlab_upstream::Mode;
use rstlab_witness::{
    Event, Lane, Level, Record, Sources, Taker, Takers, Wants, Witness, ended_queue,
};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::TraceConfig;
use super::client::Asked;
use super::tries::Tries;
use crate::makes::testbed::{CLOSE_DELAY, TestbedPorts};

/// Time limit for the request. Proxy and upstream have the same limit for stopping.
const LIMIT: Duration = Duration::from_secs(10);

/// Room for the records of every request that is sent until one of them fails on a kept connection.
const MAX_RECORDS: usize = 1000;

/// What was seen of a request.
pub(super) struct Traced {
    pub(super) record: Record,
    /// What was not seen, and why.
    pub(super) not_seen: Option<String>,
    pub(super) tries: Tries,
}

/// Sends requests until one ends as asked for; a request that does not is forgotten.
pub(super) async fn run(config: &TraceConfig) -> anyhow::Result<Traced> {
    let program = config
        .mode
        .has_child()
        .then(beside_this_program)
        .transpose()?;
    let stop = stop_on_signals()?;
    let mut tries = Tries::new(config.until);
    loop {
        let (record, not_seen) = try_once(config, program.clone(), &stop).await?;
        if tries.end_with(&record) {
            return Ok(Traced {
                record,
                not_seen,
                tries,
            });
        }
    }
}

/// Sends the request through proxy and upstream, and merges what each of them saw; says what was not seen, too.
async fn try_once(
    config: &TraceConfig,
    program: Option<PathBuf>,
    stop: &CancellationToken,
) -> anyhow::Result<(Record, Option<String>)> {
    let ports = TestbedPorts::open().await?;
    let port = ports.upstream()?.port();
    let (queue, mut ends) = ended_queue("trace", MAX_RECORDS, Wants::AllRecords);
    let queue: Arc<dyn Taker> = Arc::new(queue);
    let takers = || Takers::new([Arc::clone(&queue)]);
    let open = |wanted| {
        Witness::open(&Sources {
            wanted,
            port,
            for_records: true,
            ..Sources::default()
        })
    };
    let witness = open(config.witness).with_context(|| {
        let wanted = config.witness.map_or("auto", Level::as_str);
        format!("--witness {wanted} does not work here")
    })?;
    // The proxy's witness asks the kernel and the packets for both. A second witness with counters would count the
    // connection twice.
    let of_upstream = (open(Some(Level::Sockets))?, takers());
    let of_proxy = (witness.clone(), takers());
    let asked = tokio::select! {
        asked = ask(config, program, ports, of_upstream, of_proxy) => asked,
        () = stop.cancelled() => Err(anyhow::anyhow!("stopped by a signal")),
    };
    witness.close().await;
    let not_seen = not_seen(&witness, config.witness);
    let asked = asked?;
    let mut halves = Vec::new();
    while let Ok(ended) = ends.try_recv() {
        halves.extend(ended.record.as_deref().cloned());
    }
    let record = put_together(halves, config.mode, &asked)?;
    Ok((record, not_seen))
}

/// Runs the testbed, and sends requests until one shows what the mode does.
async fn ask(
    config: &TraceConfig,
    program: Option<PathBuf>,
    ports: TestbedPorts,
    of_upstream: (Witness, Takers),
    of_proxy: (Witness, Takers),
) -> anyhow::Result<Asked> {
    let upstream = rstlab_upstream::UpstreamConfig {
        mode: config.mode,
        response_bytes: config.response_bytes,
        close_delay: CLOSE_DELAY,
        program,
        ..rstlab_upstream::UpstreamConfig::default()
    };
    let proxy = rstlab_proxy::ProxyConfig {
        writes: Writes::Split,
        gap: config.gap,
        max_body: None,
        upstream_keepalive: config.mode.keeps_alive(),
        // A kept connection stays with its worker: the second request has to reach the same one.
        workers: NonZeroUsize::MIN,
        ..rstlab_proxy::ProxyConfig::default()
    };
    let testbed = ports.start(
        (upstream, of_upstream.0, of_upstream.1),
        (proxy, of_proxy.0, of_proxy.1),
    )?;
    let asked = timeout(LIMIT, async {
        loop {
            let asked = Asked::ask(testbed.address, config.body_bytes).await?;
            // The first request that goes out on a kept connection loses the race.
            if !config.mode.keeps_alive() || !asked.was_answered() {
                return anyhow::Ok(asked);
            }
        }
    });
    let asked = asked
        .await
        .with_context(|| format!("the request did not come to an end within {LIMIT:?}"))?;
    testbed.stop().await?;
    asked
}

/// The path of the program that answers in a process of its own, for the mode `kill`.
fn beside_this_program() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find the path of this program")?;
    let path = own.with_file_name("rstlab-upstream");
    if !path.is_file() {
        bail!(
            "mode kill needs the program rstlab-upstream, and {} is not there: build it with \
             `cargo build --workspace`, or put it there",
            path.display()
        );
    }
    Ok(path)
}

fn not_seen(witness: &Witness, wanted: Option<Level>) -> Option<String> {
    match (witness.why_not_more(), wanted) {
        (Some(why), _) => Some(why.to_owned()),
        (None, Some(level)) if level < Level::Kernel => Some(format!(
            "stronger evidence: --witness {level} asks for none"
        )),
        (None, _) => None,
    }
}

/// The record of the connection, merged from its two halves and from what the client saw.
fn put_together(halves: Vec<Record>, mode: Mode, asked: &Asked) -> anyhow::Result<Record> {
    let (proxy, upstream): (Vec<_>, Vec<_>) = halves
        .into_iter()
        .partition(|half| half.evidence.client.is_some());
    let reused = mode.keeps_alive();
    let mut record = proxy
        .into_iter()
        .find(|half| {
            half.evidence
                .client
                .is_some_and(|side| side.reused == reused)
        })
        .context("the proxy has recorded no upstream connection; --log=info says more")?;
    let theirs = |event: &&Event| matches!(event.lane, Lane::Client | Lane::Proxy);
    let since = record
        .events
        .iter()
        .find(theirs)
        .map_or(0, |event| event.at_ns);
    if let Some(half) = upstream
        .into_iter()
        .find(|half| half.pair() == record.pair())
    {
        record = record.merge(half)?;
    }
    // Events before `since` belong to earlier requests on the same connection. The client's own events follow.
    record
        .events
        .retain(|event| event.at_ns >= since && event.lane != Lane::Client);
    record.events.extend(asked.events());
    record.events.sort_by_key(|event| event.at_ns);
    Ok(record)
}
