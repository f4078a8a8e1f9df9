//! `rstlab demo`: the main job. Every way to treat a body behind a proxy that splits its writes, loaded and
//! counted: by the client, by the proxy, and by the kernel.

mod row;
mod text;

use std::process::ExitCode;
use std::time::Duration;

use rstlab_cli::{Settings, block_on};
use serde::Serialize;

pub use row::Outcome;
use row::ROWS;

use crate::output::{advance, print, progress_bar};

/// Most requests a row may send.
const MOST_REQUESTS: u64 = 1_000_000;

/// Show the reset, its cause and its cures: each mode of the upstream behind the proxy, loaded and counted
///
/// Runs upstream and proxy in process on free ports of 127.0.0.1, sends requests with a body of 22 bytes
/// (cap-over: 2 MiB) for responses of 614,400 bytes, and prints a row for each mode. Exit code 0 if every row
/// behaves as the explanation says, else 1.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Requests of each row
    #[arg(long, default_value = "200")]
    requests: String,

    /// Pause between the two writes of a request
    #[arg(long, default_value = "1ms")]
    gap: String,

    /// Print one JSON object in place of the table (crates/lab/schema/demo.json)
    #[arg(long)]
    json: bool,
}

/// The settings of a demonstration, checked.
#[derive(Debug)]
pub struct Config {
    requests: u64,
    gap: Duration,
    json: bool,
}

impl Args {
    /// Checks the settings; bad ones are noted in `settings`.
    pub fn config(&self, settings: &mut Settings) -> Option<Config> {
        let allowed = format!("a number from 1 to {MOST_REQUESTS}");
        let requests = settings.read("--requests", &self.requests, &allowed, |text| {
            text.parse()
                .ok()
                .filter(|n| (1..=MOST_REQUESTS).contains(n))
        });
        let gap = settings.time("--gap", &self.gap);
        Some(Config {
            requests: requests?,
            gap: gap?,
            json: self.json,
        })
    }
}

/// All rows, as `--json` prints them.
#[derive(Debug, Serialize)]
pub struct Demonstration {
    /// One for each mode and way to write.
    pub rows: Vec<Outcome>,
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
pub fn execute(config: &Config) -> anyhow::Result<ExitCode> {
    let demonstration = block_on(run(config.requests, config.gap))?;
    let rows = &demonstration.rows;
    print([if config.json {
        serde_json::to_string_pretty(&demonstration)? + "\n"
    } else {
        format!("{}\n{}\n", text::table(rows), text::sentences(rows))
    }])?;
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
    let all = requests * ROWS.len() as u64;
    let mut rows = Vec::new();
    for (row, before) in ROWS.iter().zip((0..).step_by(usize::try_from(requests)?)) {
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
