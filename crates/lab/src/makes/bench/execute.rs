//! What `rstlab bench` does: it announces the run, takes the turns, writes the files and prints the tables.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use rstlab_cli::{EXIT_USAGE, block_on, stop_on_signals};

use super::args::BenchConfig;
use super::report::BenchReport;
use super::run::BenchRun;
use super::{markdown, text};
use crate::shared::output::{Output, advance, print, progress_bar};

/// Announces the run, takes the turns, writes the files, prints the tables.
///
/// # Errors
/// Standard output is closed, a file can't be written, there is no port for the upstream, or a signal interrupted the
/// command.
pub fn execute(config: &BenchConfig) -> anyhow::Result<ExitCode> {
    if config.list {
        print([config.words()])?;
        return Ok(ExitCode::SUCCESS);
    }
    let open = |path: &Option<PathBuf>| Output::create(path.as_deref());
    let (json, markdown) = match open(&config.json).and_then(|it| Ok((it, open(&config.markdown)?)))
    {
        Ok(outputs) => outputs,
        Err(error) => {
            eprintln!("rstlab: {error:#}");
            return Ok(ExitCode::from(EXIT_USAGE));
        }
    };
    if !config.quiet {
        eprintln!("{}", config.announcement());
    }
    let report = block_on(bench(config))?;
    json.write_json(&report)?;
    markdown.write(|| Ok(markdown::markdown(&report)))?;
    if !config.quiet {
        print([text::text(&report)])?;
    }
    Ok(if report.is_complete() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn bench(config: &BenchConfig) -> anyhow::Result<BenchReport> {
    let bar = progress_bar(config.quiet, "{msg:48} {bar:24} {elapsed}, {eta} to go");
    bar.enable_steady_tick(Duration::from_secs(1));
    let run = BenchRun {
        config,
        stop: stop_on_signals().context("cannot listen for signals")?,
        progress: |done, all, words| {
            bar.set_message(words);
            advance(&bar, done, all);
        },
    };
    let report = run.run().await?;
    bar.finish_and_clear();
    report.context("interrupted: there are no figures, and nothing is left running")
}
