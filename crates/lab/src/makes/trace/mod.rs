//! `rstlab trace`: one request through proxy and upstream, and its timeline.

mod client;
mod run;
mod tries;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use rstlab_cli::{Settings, block_on, witness_level};
use rstlab_upstream::Mode;
use rstlab_witness::Level;

use crate::makes::tcp_memory::TcpMemory;
use crate::shared::color::tone_words;
use crate::shared::output::{Output, print};
use crate::shared::timeline::{TIMELINE_TONES, Timeline};
use run::Traced;
use tries::{TraceOutcome, UNTIL};

/// Largest body of a request or a response: a timeline needs no more.
const MAX_BYTES: u64 = 1 << 30;

/// Show one request on its way: what client, proxy, wire, upstream and kernel did, on one clock, and why it ended that way
///
/// It runs upstream and proxy in this process on free ports of 127.0.0.1, sends one POST through both, and draws its
/// upstream connection. If the request did not end as asked for, another one is sent, up to 20 in all. As root the timeline has all five lanes; without privileges its last lines say what is missing.
/// Times are milliseconds since the first event. The pause is the time since the line before. "3 × recv = 128,103" are
/// three calls and the sum of their bytes.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 a timeline was shown, 1 none of the requests ended as asked for, no timeline was shown, \
                  or a file was not written, 2 bad settings."
)]
pub struct TraceArgs {
    /// What the upstream does with the body, and how it closes
    #[arg(long, default_value = "lazy", long_help = modes())]
    mode: String,

    /// Pause of the proxy between writing head and body, 0ms to 5s
    #[arg(long, default_value = "20ms", value_name = "TIME")]
    gap: String,

    /// Length of the request's body, at most 1GiB
    #[arg(long, default_value = "22", value_name = "BYTES")]
    body: String,

    /// Length of the response's body, at most 1GiB
    #[arg(long, default_value = "614400", value_name = "BYTES")]
    response_bytes: String,

    /// The outcome to wait for: cut, harmless (whole in spite of a reset), whole (without a reset) or any [default: what
    /// the mode is there to show; cut for lazy]
    #[arg(long, value_name = "OUTCOME")]
    until: Option<String>,

    /// The strongest evidence to ask for: auto, sockets, counters, packets (CAP_NET_RAW), kernel (root, tracefs)
    #[arg(long, default_value = "auto", value_name = "LEVEL")]
    witness: String,

    /// Print the record as one line of JSON in place of the text (crates/lab/schema/record.json describes it)
    #[arg(long)]
    json: bool,

    /// Draw the timeline into this file, too
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,

    /// Write the packets into this file, too (pcapng, with the cause as a comment)
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,
}

/// The settings of a trace, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceConfig {
    mode: Mode,
    gap: Duration,
    body_bytes: u64,
    response_bytes: u64,
    until: Option<TraceOutcome>,
    witness: Option<Level>,
    json: bool,
    svg: Option<PathBuf>,
    pcap: Option<PathBuf>,
}

impl TraceArgs {
    /// The settings, or `None` if one of them is bad.
    pub fn config(&self, settings: &mut Settings) -> Option<TraceConfig> {
        let modes = Mode::ALL.map(|mode| (mode.as_str(), mode));
        let mode = settings.choice("--mode", &self.mode, &modes);
        let gap = settings.read("--gap", &self.gap, "a time from 0ms to 5s", |text| {
            humantime::parse_duration(text)
                .ok()
                .filter(|gap| *gap <= Duration::from_secs(5))
        });
        let body_bytes = bytes(settings, "--body", &self.body);
        let response_bytes = bytes(settings, "--response-bytes", &self.response_bytes);
        let until = match &self.until {
            Some(word) => settings.choice("--until", word, &UNTIL),
            None => mode.map(|mode| Some(TraceOutcome::of_mode(mode))),
        };
        let witness = witness_level(settings, "--witness", &self.witness);
        Some(TraceConfig {
            mode: mode?,
            gap: gap?,
            body_bytes: body_bytes?,
            response_bytes: response_bytes?,
            until: until?,
            witness: witness?,
            json: self.json,
            svg: self.svg.clone(),
            pcap: self.pcap.clone(),
        })
    }
}

/// The help of `--mode`.
fn modes() -> String {
    format!(
        "What the upstream does with the body, and how it closes. delay closes 250 ms after its response; of idle-close \
         the next request is shown; kill needs the program rstlab-upstream beside this one.\n\n{}",
        rstlab_cli::list(Mode::meanings())
    )
}

fn bytes(settings: &mut Settings, name: &str, text: &str) -> Option<u64> {
    let bytes = settings.bytes(name, text)?;
    let allowed = "a number of bytes up to 1GiB";
    settings.read(name, text, allowed, |_| {
        (bytes <= MAX_BYTES).then_some(bytes)
    })
}

/// Sends the request until it ends as asked for, and shows its timeline.
///
/// # Errors
/// The request could not be sent, nothing was seen, or an output cannot be written.
pub fn execute(config: &TraceConfig) -> anyhow::Result<ExitCode> {
    let (svg, pcap) = (
        Output::create(config.svg.as_deref())?,
        Output::create(config.pcap.as_deref())?,
    );
    let memory = TcpMemory::now();
    let Traced {
        record,
        not_seen,
        tries,
    } = block_on(run::run(config))?;
    let facts = [
        ("tries", tries.text()),
        ("try", tries.advice().map(str::to_owned)),
        ("memory", memory.shortage()),
        ("not seen", not_seen),
    ];
    let facts = facts.map(|(about, text)| text.map(|text| (about, text)));
    let mut timeline = Timeline::of(&record);
    for (about, text) in facts.iter().flatten() {
        timeline = timeline.with_fact(about, text);
    }
    if config.json {
        print([record.to_json() + "\n"])?;
        for (about, text) in facts.iter().flatten() {
            eprintln!("rstlab: {about}: {text}");
        }
    } else {
        print([tone_words(&timeline.text(), &TIMELINE_TONES)])?;
    }
    svg.write(|| Ok(timeline.svg()))?;
    pcap.write(|| {
        record
            .pcapng(true)
            .context("--pcap: no packets were captured; that takes CAP_NET_RAW and --witness auto, packets or kernel")
    })?;
    Ok(if tries.succeeded() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
