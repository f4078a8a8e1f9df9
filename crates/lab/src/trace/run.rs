use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rstlab_cli::stop_on_signals;
use rstlab_proxy::Writes;
use rstlab_upstream::Mode;
use rstlab_witness::{Event, Lane, Level, Record, Recorder, Witness};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::Config;
use super::client::Asked;
use crate::both::Ports;

/// Longest wait for the request's end. Those for proxy and upstream to stop are as long.
const LIMIT: Duration = Duration::from_secs(10);

/// How long `delay` waits: longer than a response takes, shorter than the proxy watches (1 s).
const CLOSE_DELAY: Duration = Duration::from_millis(250);

/// More records than connections: requests go on until one meets a kept connection.
const MOST_RECORDS: usize = 1000;

/// What was seen of a request.
pub(super) struct Traced {
    pub(super) record: Record,
    /// What was not seen, and why.
    pub(super) not_seen: Option<String>,
}

/// Sends the request through both, and puts together what each of them saw.
pub(super) async fn run(config: &Config) -> anyhow::Result<Traced> {
    let program = match config.mode {
        Mode::Kill => Some(beside_this_program()?),
        _ => None,
    };
    let stop = stop_on_signals()?;
    let ports = Ports::open().await?;
    let port = ports.upstream()?.port();
    let (sender, mut records) = mpsc::channel(MOST_RECORDS);
    let recorder = Recorder::everything_to_channel(sender);
    let witness =
        Witness::open(config.witness, port, Some(recorder.clone())).with_context(|| {
            let wanted = config.witness.map_or("auto", Level::as_str);
            format!("--witness {wanted} does not work here")
        })?;
    // One of them asks the kernel and the packets, for both. The counters would take the two for two connections.
    let sockets = Witness::open(Some(Level::Sockets), port, Some(recorder))?;
    let asked = tokio::select! {
        asked = ask(config, program, ports, (sockets, witness.clone())) => asked,
        () = stop.cancelled() => Err(anyhow::anyhow!("stopped by a signal")),
    };
    witness.close().await;
    let not_seen = not_seen(&witness, config.witness);
    let asked = asked?;
    let mut halves = Vec::new();
    while let Ok(half) = records.try_recv() {
        halves.push(half);
    }
    Ok(Traced {
        record: put_together(halves, config.mode, &asked)?,
        not_seen,
    })
}

/// Runs both, and asks until there is something to see.
async fn ask(
    config: &Config,
    program: Option<PathBuf>,
    ports: Ports,
    (of_upstream, of_proxy): (Witness, Witness),
) -> anyhow::Result<Asked> {
    let upstream = rstlab_upstream::Config {
        mode: config.mode,
        response_bytes: config.response_bytes,
        close_delay: CLOSE_DELAY,
        program,
        ..rstlab_upstream::Config::default()
    };
    let proxy = rstlab_proxy::Config {
        writes: Writes::Split { gap: config.gap },
        max_body: None,
        upstream_keepalive: config.mode == Mode::IdleClose,
        ..rstlab_proxy::Config::default()
    };
    let both = ports.start((upstream, of_upstream), (proxy, of_proxy))?;
    let asked = timeout(LIMIT, async {
        loop {
            let asked = Asked::ask(both.address, config.body_bytes).await?;
            // The race is lost by the first request that goes out on a kept connection.
            if config.mode != Mode::IdleClose || !asked.was_answered() {
                return anyhow::Ok(asked);
            }
        }
    });
    let asked = asked
        .await
        .with_context(|| format!("the request did not come to an end within {LIMIT:?}"))?;
    both.stop().await?;
    asked
}

/// Where `kill` finds the program that answers in a process of its own.
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

/// One record of the two halves, with what the client saw.
fn put_together(halves: Vec<Record>, mode: Mode, asked: &Asked) -> anyhow::Result<Record> {
    let (proxy, upstream): (Vec<_>, Vec<_>) = halves
        .into_iter()
        .partition(|half| half.evidence.client.is_some());
    let reused = mode == Mode::IdleClose;
    let mut record = proxy
        .into_iter()
        .find(|half| {
            half.evidence
                .client
                .is_some_and(|side| side.reused == reused)
        })
        .context("the proxy has not told of an upstream connection; --log=info says more")?;
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
    // What came before is of earlier requests on the same connection; and the client speaks for itself.
    record
        .events
        .retain(|event| event.at_ns >= since && event.lane != Lane::Client);
    record.events.extend(asked.events());
    record.events.sort_by_key(|event| event.at_ns);
    Ok(record)
}
