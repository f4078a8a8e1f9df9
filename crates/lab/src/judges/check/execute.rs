//! What `rstlab check` does: it runs a check, writes the files, prints the report.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use rstlab_cli::{EXIT_USAGE, block_on, stop_on_signals};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::baseline::Baseline;
use super::cannot_check::CannotCheck;
use super::fail_on::FailOn;
use super::list::list;
use super::plan::CheckPlan;
use super::report::CheckReport;
use super::route::Route;
use super::run::run_until;
use super::verdict::CheckVerdict;
use super::{junit, markdown, text, through};
use crate::shared::output::{Output, advance, print, progress_bar};
use crate::shared::url::Url;

/// Exit code of a check that could not tell whether responses are lost.
const EXIT_CANNOT_TELL: u8 = 3;

/// Where the report goes.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Outputs {
    /// An earlier report of --json: the report begins with what is fixed, still there and new since then. The exit code is
    /// 1 only if something got worse that is as bad as --fail-on says.
    #[arg(long, value_name = "FILE", conflicts_with = "through")]
    baseline: Option<PathBuf>,

    /// Write the report as JSON (crates/lab/schema/check.json describes it; with --through crates/lab/schema/through.json).
    /// Here and below, - means standard output.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Write the verdicts as JUnit XML, for CI systems: a scenario is a test.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,

    /// Write the report as Markdown, for a pull request.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,

    /// Print nothing but errors.
    #[arg(long)]
    quiet: bool,
}

/// What the command does.
#[derive(Debug, Clone)]
pub enum CheckConfig {
    /// Prints the scenarios.
    List,
    /// Checks a server, or a proxy.
    Check(Box<CheckTask>),
}

/// A check, its files and its exit code.
#[derive(Debug, Clone)]
pub struct CheckTask {
    pub(super) url: Url,
    pub(super) route: Route,
    /// The plan, whose target is not yet looked up.
    pub(super) plan: CheckPlan,
    /// Where the upstream of a proxy under test listens.
    pub(super) upstream: Option<String>,
    pub(super) fail_on: FailOn,
    pub(super) outputs: Outputs,
}

/// Checks the server or the proxy, writes the files, prints the report.
///
/// # Errors
/// A file can't be written, or standard output is closed.
pub fn execute(config: &CheckConfig) -> anyhow::Result<ExitCode> {
    let task = match config {
        CheckConfig::List => {
            print([list()])?;
            return Ok(ExitCode::SUCCESS);
        }
        CheckConfig::Check(task) => task,
    };
    // Opening a pipe waits for its reader; until then a signal ends the program.
    let files = Files::open(&task.outputs);
    let checked = files.and_then(|files| block_on(check(task, files)));
    match checked {
        Ok(code) => Ok(code),
        // Nothing was checked, so the exit code must not say that something was lost.
        Err(error) => {
            eprintln!("rstlab: {error:#}");
            Ok(match error.downcast_ref() {
                Some(CannotCheck::Interrupted) => ExitCode::FAILURE,
                _ => ExitCode::from(EXIT_USAGE),
            })
        }
    }
}

/// What comes of `work`, or the error that it was interrupted.
async fn unless_stopped<T>(
    stop: &CancellationToken,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    tokio::select! {
        done = work => done,
        () = stop.cancelled() => Err(CannotCheck::Interrupted.into()),
    }
}

/// The files of a check.
struct Files {
    baseline: Option<Baseline>,
    json: Output,
    junit: Output,
    markdown: Output,
}

impl Files {
    /// Reads the baseline before the report can replace it, if both are one file.
    fn open(outputs: &Outputs) -> anyhow::Result<Self> {
        let open = |path: &Option<PathBuf>| Output::create(path.as_deref());
        Ok(Self {
            baseline: outputs
                .baseline
                .as_deref()
                .map(Baseline::read)
                .transpose()?,
            json: open(&outputs.json)?,
            junit: open(&outputs.junit)?,
            markdown: open(&outputs.markdown)?,
        })
    }
}

async fn check(task: &CheckTask, files: Files) -> anyhow::Result<ExitCode> {
    let stop = stop_on_signals().context("cannot listen for signals")?;
    let url = task.url.to_string();
    let looked_up = task.route.target(&task.url, task.plan.timeout);
    let plan = CheckPlan {
        target: unless_stopped(&stop, looked_up).await?,
        ..task.plan.clone()
    };
    let unit = task.upstream.as_ref().map_or("trials", |_| "clients");
    let template = format!("{{bar:40}} {{pos}}/{{len}} {unit}, {{elapsed}}");
    let bar = progress_bar(task.outputs.quiet, &template);
    let progress = |done, all| advance(&bar, done, all);
    let (text, code) = match &task.upstream {
        Some(upstream) => {
            let listener = TcpListener::bind(upstream).await;
            let listener = listener.with_context(|| format!("cannot listen on {upstream}"))?;
            let running = async { Ok(through::run(&plan, listener, progress).await?) };
            let report = unless_stopped(&stop, running).await?;
            files.json.write_json(&report)?;
            let markdown = || Ok(through::markdown(&url, &report));
            files.markdown.write(markdown)?;
            let code = match report.all_answered() {
                true => ExitCode::SUCCESS,
                false => ExitCode::FAILURE,
            };
            (through::text(&url, &report), code)
        }
        None => {
            let mut report = run_until(&plan, &stop, progress).await?;
            let baseline = files.baseline.as_ref();
            report.baseline = baseline.map(|before| before.compare(&report, task.fail_on));
            files.json.write_json(&report)?;
            let junit = || junit::junit(&url, &report, task.fail_on);
            files.junit.write(junit)?;
            files
                .markdown
                .write(|| Ok(markdown::markdown(&url, &report)))?;
            (text::text(&url, &report), exit_code(&report, task.fail_on))
        }
    };
    bar.finish_and_clear();
    if !task.outputs.quiet {
        print([text])?;
    }
    Ok(code)
}

/// A check that could not tell does not pass. With a baseline it passes if nothing got worse.
fn exit_code(report: &CheckReport, fail_on: FailOn) -> ExitCode {
    let mut scenarios = report.scenarios.iter();
    let has_failed = scenarios.any(|one| fail_on.fails(report, one));
    let mut scenarios = report.scenarios.iter();
    let cannot_tell =
        report.baseline.is_none() && scenarios.any(|one| one.verdict == CheckVerdict::CannotTell);
    match (has_failed, report.interrupted || cannot_tell) {
        (true, _) => ExitCode::FAILURE,
        (false, true) => ExitCode::from(EXIT_CANNOT_TELL),
        (false, false) => ExitCode::SUCCESS,
    }
}
