//! `rstlab trace`: one request through proxy and upstream, and its timeline.

mod client;
mod run;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use rstlab_cli::{Settings, block_on, witness_level};
use rstlab_upstream::Mode;
use rstlab_witness::Level;

use crate::output::print;
use crate::timeline::Timeline;
use run::Traced;

/// Most bytes of a request's or a response's body: a picture needs no more.
const MOST_BYTES: u64 = 1 << 30;

/// Show one request on its way: what client, proxy, wire, upstream and kernel did, on one clock, and why it ended so
///
/// Runs upstream and proxy in process on free ports of 127.0.0.1, sends one POST through both, and draws its upstream
/// connection. As root all five lanes speak; without privileges the picture says at its end what is missing. Times are
/// milliseconds since the first event, the pause is the time since the line before. "3 × recv = 128,103" are three
/// calls and the sum of their bytes.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 a timeline was shown, 1 none was, or a file was not written, 2 bad settings."
)]
pub struct Args {
    /// What the upstream does with the body, and how it closes
    ///
    ///   lazy        ignores the body, closes at once: the bug
    ///   drain, cap  read the body, close at once: a FIN
    ///   linger      ignores the body, closes in stages: a FIN
    ///   delay       ignores the body, closes 250 ms after its response
    ///   abort       closes with SO_LINGER 0: a RST for another reason
    ///   truncate    closes in the middle of the response: a FIN
    ///   idle-close  closes a kept connection when the next request comes, which is the
    ///               one that is shown
    ///   kill        the process that answers is killed; needs the program
    ///               rstlab-upstream beside this one
    #[arg(long, default_value = "lazy", verbatim_doc_comment)]
    mode: String,

    /// Pause between the two writes of the proxy, head and body
    #[arg(long, default_value = "1ms")]
    gap: String,

    /// Length of the request's body
    #[arg(long, default_value = "22", value_name = "BYTES")]
    body: String,

    /// Length of the response's body
    #[arg(long, default_value = "614400", value_name = "BYTES")]
    response_bytes: String,

    /// The strongest evidence to ask for: auto, sockets, counters, packets (CAP_NET_RAW), kernel (root, tracefs)
    #[arg(long, default_value = "auto", value_name = "LEVEL")]
    witness: String,

    /// Print the record as one line of JSON (schema/record.json) in place of the text
    #[arg(long)]
    json: bool,

    /// Draw the timeline into this file too
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,

    /// Write the packets into this file too (pcapng), the cause as comment
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,
}

/// What to trace, and what to show of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    mode: Mode,
    gap: Duration,
    body_bytes: u64,
    response_bytes: u64,
    witness: Option<Level>,
    json: bool,
    svg: Option<PathBuf>,
    pcap: Option<PathBuf>,
}

impl Args {
    /// The settings, or `None` if one of them is bad.
    pub fn config(&self, settings: &mut Settings) -> Option<Config> {
        let modes = Mode::ALL.map(|mode| (mode.as_str(), mode));
        let mode = settings.choice("--mode", &self.mode, &modes);
        let gap = settings.read("--gap", &self.gap, "a time from 0ms to 5s", |text| {
            humantime::parse_duration(text)
                .ok()
                .filter(|gap| *gap <= Duration::from_secs(5))
        });
        let body_bytes = bytes(settings, "--body", &self.body);
        let response_bytes = bytes(settings, "--response-bytes", &self.response_bytes);
        let witness = witness_level(settings, "--witness", &self.witness);
        Some(Config {
            mode: mode?,
            gap: gap?,
            body_bytes: body_bytes?,
            response_bytes: response_bytes?,
            witness: witness?,
            json: self.json,
            svg: self.svg.clone(),
            pcap: self.pcap.clone(),
        })
    }
}

fn bytes(settings: &mut Settings, name: &str, text: &str) -> Option<u64> {
    let bytes = settings.bytes(name, text)?;
    let allowed = "a number of bytes up to 1GiB";
    settings.read(name, text, allowed, |_| {
        (bytes <= MOST_BYTES).then_some(bytes)
    })
}

/// Sends the request and shows what happened to it.
///
/// # Errors
/// The request could not be sent, nothing was seen, or an output cannot be written.
pub fn execute(config: &Config) -> anyhow::Result<ExitCode> {
    let Traced { record, not_seen } = block_on(run::run(config))?;
    let mut timeline = Timeline::of(&record);
    if let Some(text) = &not_seen {
        timeline = timeline.with_fact("not seen", text);
    }
    if config.json {
        print([record.to_json() + "\n"])?;
        if let Some(text) = &not_seen {
            eprintln!("rstlab: not seen: {text}");
        }
    } else {
        print([timeline.text()])?;
    }
    if let Some(path) = &config.svg {
        fs::write(path, timeline.svg())
            .with_context(|| format!("the picture cannot be written to {}", path.display()))?;
    }
    if let Some(path) = &config.pcap {
        let packets = record
            .pcapng()
            .context("--pcap: no packets were captured; that takes CAP_NET_RAW and --witness auto, packets or kernel")?;
        fs::write(path, packets)
            .with_context(|| format!("the packets cannot be written to {}", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}
