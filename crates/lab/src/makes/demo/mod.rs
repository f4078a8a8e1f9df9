//! `rstlab demo`: sends load to each mode of the upstream behind a proxy that splits its writes, and counts the resets as
//! client, proxy and kernel see them.

mod case;
mod text;

use std::process::ExitCode;
use std::time::Duration;

use rstlab_cli::{Settings, block_on};
use schemars::JsonSchema;
use serde::Serialize;

use case::CASES;
pub use case::DemoRow;

use crate::makes::tcp_memory::TcpMemory;
use crate::shared::output::{advance, print, progress_bar};

/// Largest value of `--requests`.
const MAX_REQUESTS: u64 = 1_000_000;

/// Show the reset, its cause and its cures: each mode of the upstream behind the proxy, loaded and counted
///
/// It runs upstream and proxy in this process on free ports of 127.0.0.1, sends requests with a body of 22 bytes
/// (cap-over: 2 MiB), each for a response of 614,400 bytes, and prints a row for each mode.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 every row behaves as the explanation says, 1 a row does not, 2 bad settings."
)]
pub struct DemoArgs {
    /// Requests of each row, 1 to 1000000
    #[arg(long, default_value = "200", value_name = "N")]
    requests: String,

    /// Pause between the two writes of a request: 500us, 2ms
    #[arg(long, default_value = "1ms", value_name = "TIME")]
    gap: String,

    /// Print one JSON object in place of the table (crates/lab/schema/demo.json describes it)
    #[arg(long)]
    json: bool,
}

/// The settings of a demonstration, checked.
#[derive(Debug)]
pub struct DemoConfig {
    requests: u64,
    gap: Duration,
    json: bool,
}

impl DemoArgs {
    /// Checks the settings; bad ones are noted in `settings`.
    pub fn config(&self, settings: &mut Settings) -> Option<DemoConfig> {
        let allowed = format!("a number from 1 to {MAX_REQUESTS}");
        let requests = settings.read("--requests", &self.requests, &allowed, |text| {
            text.parse().ok().filter(|n| (1..=MAX_REQUESTS).contains(n))
        });
        let gap = settings.time("--gap", &self.gap);
        Some(DemoConfig {
            requests: requests?,
            gap: gap?,
            json: self.json,
        })
    }
}

/// Every mode of the upstream behind the proxy: what client, proxy and kernel counted.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(title = "rstlab demo --json")]
pub struct Demonstration {
    /// One row for each mode and way to write.
    pub rows: Vec<DemoRow>,
}

impl Demonstration {
    /// Whether every row behaved as the explanation says.
    pub fn as_expected(&self) -> bool {
        self.rows.iter().all(|row| row.as_expected)
    }
}

/// Runs the demonstration and prints it.
///
/// # Errors
/// A port can't be opened, or the kernel's counters can't be read.
pub fn execute(config: &DemoConfig) -> anyhow::Result<ExitCode> {
    let memory = TcpMemory::now();
    let demonstration = block_on(run(config.requests, config.gap))?;
    let rows = &demonstration.rows;
    print([if config.json {
        serde_json::to_string_pretty(&demonstration)? + "\n"
    } else {
        format!("{}\n{}", text::table(rows), text::sentences(rows))
    }])?;
    if let Some(text) = memory.shortage() {
        eprintln!("rstlab: {text}");
    }
    Ok(if demonstration.as_expected() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Runs every row, one after the other, with a progress bar if standard error is a terminal.
///
/// # Errors
/// As [`execute`].
pub async fn run(requests: u64, gap: Duration) -> anyhow::Result<Demonstration> {
    let bar = progress_bar(false, "{msg:20} {wide_bar} {pos}/{len} {eta}");
    let all = requests * CASES.len() as u64;
    let mut rows = Vec::new();
    for (row, before) in CASES.iter().zip((0..).step_by(usize::try_from(requests)?)) {
        let writes = if row.joined { "joined" } else { "split" };
        bar.set_message(format!("{}, {writes}", row.name));
        rows.push(
            row.run(requests, gap, |done| advance(&bar, before + done, all))
                .await?,
        );
    }
    bar.finish_and_clear();
    Ok(Demonstration { rows })
}
