//! The command line of `rstlab check`, and what the command does: it runs a check, writes the files, prints the report.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use http::{HeaderName, HeaderValue};
use rstlab_cli::{EXIT_USAGE, Settings, block_on, stop_on_signals};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::cannot_check::CannotCheck;
use super::plan::{CheckPlan, method};
use super::report::{CheckReport, FailOn};
use super::run::run_until;
use super::scenarios::scenario_names;
use super::verdict::CheckVerdict;
use super::{junit, markdown, text, through};
use crate::shared::given::given;
use crate::shared::output::{Output, advance, print, progress_bar};
use crate::shared::target::{Address, Target};
use crate::shared::url::Url;

/// Exit code of a check that could not tell whether responses are lost.
const EXIT_CANNOT_TELL: u8 = 3;

/// The most trials of a scenario with a client.
const MAX_TRIALS: u64 = 10_000;

/// The largest body, in bytes.
const MAX_BODY: u64 = 1024 * 1024 * 1024;

/// The most sizes, and the most gaps.
const MAX_VALUES: usize = 16;

/// Fields that say where a message ends and whether the connection stays: the scenarios set them.
const SET_BY_SCENARIOS: [&str; 5] = [
    "connection",
    "content-length",
    "expect",
    "trailer",
    "transfer-encoding",
];

/// Says of any HTTP/1.1 server whether its clients lose responses, and why
///
/// It sends requests with bodies in every way that a client or a proxy may, and reports how each response ends: whole,
/// cut by a reset, cut without a reset, or no response at all. A reset after a whole response is called harmless. Each
/// scenario runs with three clients: an ordinary one, one that reads late and reads on after a failed write, and one that
/// reads late and stops there, as nginx and Envoy do; and, where the scenario leaves it open, on connections that are kept
/// and on connections that are to be closed. It needs no privilege.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "So that bytes can be lost on one machine, a client has a receive buffer of 4096 bytes (on TCP), \
                  sends everything before it reads, and starts reading 4 ms after the first byte came. Ask for a path \
                  with a large response, over 16 KiB: a small one is never cut on one machine.\n\
                  Exit codes: 0 nothing was lost (and with --fail-on reset: no reset; with --through: every client \
                  got the answer), 1 something was, 2 bad settings, no connection, no HTTP server there, no time for \
                  a trial, or most requests were answered with 401 or 429, 3 nothing was lost, but not every scenario \
                  can tell. An interrupted check is never 0."
)]
pub struct CheckArgs {
    /// An http:// URL, such as http://127.0.0.1:8000/path?query
    #[arg(required_unless_present = "through")]
    url: Option<String>,

    /// Method of the requests; get-with-body uses GET.
    #[arg(long, default_value = "POST")]
    method: String,

    /// A field added to each request, 'Name: value'; can be given again.
    #[arg(long, value_name = "FIELD")]
    header: Vec<String>,

    /// Connect to a unix socket; the URL still says host and path.
    #[arg(long, value_name = "PATH")]
    unix: Option<PathBuf>,

    /// Sizes of the requests' bodies; body-large, early-answer and others have their own
    /// [default: 22,60000; with --through 22,100000,1000000,5000000]
    #[arg(long, value_name = "BYTES,...")]
    body_sizes: Option<String>,

    /// Pauses between head and body [default: 500us,2ms,20ms]
    #[arg(long, value_name = "TIME,...")]
    gaps: Option<String>,

    /// Trials of each scenario with each client on connections of each kind, and at least one of each size and gap. Slow scenarios have fewer; all
    /// have fewer when the time is up (17 s for each 50 trials)
    /// [default: 50; with --through 100 of each size]
    #[arg(long, value_name = "N")]
    trials: Option<String>,

    /// Run these scenarios only (the URL stands before this option). Without it, all of them run:
    ///   body-with-head, body-after-gap, body-large, body-trickles, body-chunked,
    ///   get-with-body, pipelined, keep-alive, expect-continue, http-1.0, early-answer,
    ///   half-close
    #[arg(long, value_name = "NAME", num_args = 1.., verbatim_doc_comment)]
    scenario: Vec<String>,

    /// What makes the exit code 1: truncated (a response or its end was lost) or reset (the same, or any reset).
    #[arg(long, default_value = "truncated", value_name = "WHAT")]
    fail_on: String,

    /// Limit of each trial, the pauses between its writes not counted.
    #[arg(long, default_value = "5s", value_name = "TIME")]
    timeout: String,

    /// Statuses expected of the path, such as 200,413. Without it, the status of the answer to a request without a body.
    /// Answers with another status are counted apart; 502, 503 and 504 among them are lost responses.
    #[arg(long, value_name = "STATUS,...")]
    expect_status: Option<String>,

    /// How long to wait, in the middle of a check, for a server that refuses connections: it may be restarted.
    #[arg(long, default_value = "2s", value_name = "TIME")]
    retry: String,

    /// Check a proxy in place of a server. rstlab is the upstream behind the proxy: it answers 401 as soon as it has a
    /// request's head, and closes. Counts how many clients get that answer while they upload.
    #[arg(long, value_name = "URL", requires = "upstream_listen")]
    #[arg(conflicts_with_all = ["url", "gaps", "scenario", "fail_on", "junit", "expect_status", "retry"])]
    through: Option<String>,

    /// Where rstlab listens as the upstream of the proxy, such as 127.0.0.1:9000.
    #[arg(
        long,
        value_name = "ADDRESS",
        requires = "through",
        conflicts_with = "url"
    )]
    upstream_listen: Option<String>,

    #[command(flatten)]
    outputs: Outputs,
}

/// Where the report goes.
#[derive(Debug, Clone, clap::Args)]
struct Outputs {
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
pub struct CheckConfig {
    url: Url,
    unix: Option<PathBuf>,
    /// The plan, whose target is not yet looked up.
    plan: CheckPlan,
    /// Where the upstream of a proxy under test listens.
    upstream: Option<String>,
    fail_on: FailOn,
    outputs: Outputs,
}

impl CheckConfig {
    /// The plan with its target.
    ///
    /// # Errors
    /// The URL's host does not resolve, or none of its addresses accepts a connection.
    async fn plan(&self) -> anyhow::Result<CheckPlan> {
        let target = Target::resolve(&self.url, self.unix.as_deref(), self.plan.timeout);
        Ok(CheckPlan {
            target: target.await?,
            ..self.plan.clone()
        })
    }
}

impl CheckArgs {
    /// The settings, or `None` if one of them is bad.
    pub fn config(&self, settings: &mut Settings) -> Option<CheckConfig> {
        let allowed = "an http:// URL with a host and without a user name; TLS is not spoken, so check the plain \
                       http port behind what ends it";
        let (name, url) = match &self.through {
            Some(url) => ("--through", url.as_str()),
            None => ("URL", self.url.as_deref().unwrap_or_default()),
        };
        let url = settings.read(name, url, allowed, Url::parse);
        let upstream = self.upstream_listen.as_deref();
        let upstream = upstream.map(|text| settings.host_port("--upstream-listen", text));
        let nowhere = Target {
            address: Address::Unix(PathBuf::new()),
            host: String::new(),
            path: String::new(),
        };
        let usual = match self.through {
            Some(_) => CheckPlan::through(nowhere),
            None => CheckPlan::new(nowhere),
        };
        let method = settings.read("--method", &self.method, "POST, PUT, GET, ...", method);
        let headers = all(self
            .header
            .iter()
            .map(|text| {
                let allowed = "'Name: value', but none that the scenarios set (Connection, Content-Length, Expect, \
                               Trailer, Transfer-Encoding)";
                settings.read("--header", text, allowed, field)
            }));
        let sizes = self.body_sizes.as_deref().map(|text| {
            list(settings, "--body-sizes", text, |settings, text| {
                let bytes = settings.bytes("--body-sizes", text)?.to_string();
                settings.read("--body-sizes", &bytes, "at most 1GiB", |text| {
                    text.parse().ok().filter(|bytes| *bytes <= MAX_BODY)
                })
            })
        });
        let gaps = self.gaps.as_deref().map(|text| {
            list(settings, "--gaps", text, |settings, text| {
                settings.time("--gaps", text)
            })
        });
        let trials = self.trials.as_deref().map(|text| {
            let allowed = format!("1 to {MAX_TRIALS}");
            settings.read("--trials", text, &allowed, |text| {
                text.parse()
                    .ok()
                    .filter(|trials| (1..=MAX_TRIALS).contains(trials))
            })
        });
        let names: Vec<_> = scenario_names().map(|name| (name, name)).collect();
        let chosen = self.scenario.iter();
        let chosen = all(chosen.map(|text| settings.choice("--scenario", text, &names)));
        let choices = [("truncated", FailOn::Truncated), ("reset", FailOn::Reset)];
        let fail_on = settings.choice("--fail-on", &self.fail_on, &choices);
        let timeout = settings.time_limit("--timeout", &self.timeout);
        let statuses = self.expect_status.as_deref().map(|text| {
            list(settings, "--expect-status", text, |settings, text| {
                settings.read("--expect-status", text, "200 to 599", |text| {
                    text.parse()
                        .ok()
                        .filter(|status| (200..600).contains(status))
                })
            })
        });
        let retry = settings.time("--retry", &self.retry);

        Some(CheckConfig {
            url: url?,
            unix: self.unix.clone(),
            plan: CheckPlan {
                method: method?,
                headers: headers?,
                body_sizes: sizes.unwrap_or(Some(usual.body_sizes))?,
                gaps: gaps.unwrap_or(Some(usual.gaps))?,
                trials: trials.unwrap_or(Some(usual.trials))?,
                scenarios: chosen?.into_iter().map(str::to_owned).collect(),
                timeout: timeout?,
                expected_statuses: statuses.unwrap_or(Some(usual.expected_statuses))?,
                retry: retry?,
                target: usual.target,
            },
            upstream: given(upstream)?,
            fail_on: fail_on?,
            outputs: self.outputs.clone(),
        })
    }
}

/// A field's name and value.
fn field(text: &str) -> Option<(String, String)> {
    let (name, value) = text.split_once(':')?;
    let name = HeaderName::from_bytes(name.trim().as_bytes()).ok()?;
    let value = HeaderValue::from_str(value.trim()).ok()?;
    let is_set = SET_BY_SCENARIOS.contains(&name.as_str());
    let value = value.to_str().ok()?.to_owned();
    (!is_set).then(|| (name.to_string(), value))
}

/// The values between commas.
fn list<T>(
    settings: &mut Settings,
    name: &str,
    text: &str,
    mut read: impl FnMut(&mut Settings, &str) -> Option<T>,
) -> Option<Vec<T>> {
    let allowed = format!("1 to {MAX_VALUES} values with commas between");
    let values = settings.read(name, text, &allowed, |text| {
        let values: Vec<String> = text.split(',').map(str::to_owned).collect();
        (values.len() <= MAX_VALUES).then_some(values)
    })?;
    all(values.iter().map(|text| read(settings, text)))
}

/// All values, if none is bad; every value is read, so that every bad one is named.
fn all<T>(values: impl Iterator<Item = Option<T>>) -> Option<Vec<T>> {
    let values: Vec<Option<T>> = values.collect();
    values.into_iter().collect()
}

/// Checks the server or the proxy, writes the files, prints the report.
///
/// # Errors
/// A file can't be written, or standard output is closed.
pub fn execute(config: &CheckConfig) -> anyhow::Result<ExitCode> {
    // Opening a pipe waits for its reader; until then a signal ends the program.
    let files = config.outputs.open();
    let checked = files.and_then(|files| block_on(check(config, files)));
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

/// Files for JSON, JUnit XML and Markdown.
type Files = [Output; 3];

impl Outputs {
    fn open(&self) -> anyhow::Result<Files> {
        let open = |path: &Option<PathBuf>| Output::create(path.as_deref());
        Ok([open(&self.json)?, open(&self.junit)?, open(&self.markdown)?])
    }
}

async fn check(config: &CheckConfig, [json, junit, markdown]: Files) -> anyhow::Result<ExitCode> {
    let stop = stop_on_signals().context("cannot listen for signals")?;
    let plan = unless_stopped(&stop, config.plan()).await?;
    let url = config.url.to_string();
    let unit = config.upstream.as_ref().map_or("trials", |_| "clients");
    let template = format!("{{bar:40}} {{pos}}/{{len}} {unit}, {{elapsed}}");
    let bar = progress_bar(config.outputs.quiet, &template);
    let progress = |done, all| advance(&bar, done, all);
    let (text, code) = match &config.upstream {
        Some(upstream) => {
            let listener = TcpListener::bind(upstream).await;
            let listener = listener.with_context(|| format!("cannot listen on {upstream}"))?;
            let running = async { Ok(through::run(&plan, listener, progress).await?) };
            let report = unless_stopped(&stop, running).await?;
            json.write_json(&report)?;
            markdown.write(|| Ok(through::markdown(&url, &report)))?;
            let code = match report.all_answered() {
                true => ExitCode::SUCCESS,
                false => ExitCode::FAILURE,
            };
            (through::text(&url, &report), code)
        }
        None => {
            let report = run_until(&plan, &stop, progress).await?;
            json.write_json(&report)?;
            junit.write(|| junit::junit(&url, &report, config.fail_on))?;
            markdown.write(|| Ok(markdown::markdown(&url, &report)))?;
            (
                text::text(&url, &report),
                exit_code(&report, config.fail_on),
            )
        }
    };
    bar.finish_and_clear();
    if !config.outputs.quiet {
        print([text])?;
    }
    Ok(code)
}

/// A check that could not tell does not pass.
fn exit_code(report: &CheckReport, fail_on: FailOn) -> ExitCode {
    let has_failed = report.scenarios.iter().any(|one| fail_on.fails(one));
    let is_open = report.interrupted || report.verdict == CheckVerdict::CannotTell;
    match (has_failed, is_open) {
        (true, _) => ExitCode::FAILURE,
        (false, true) => ExitCode::from(EXIT_CANNOT_TELL),
        (false, false) => ExitCode::SUCCESS,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: CheckArgs,
    }

    fn plan(flags: &[&str]) -> CheckPlan {
        let cli = Cli::try_parse_from([&["check"], flags].concat()).unwrap();
        let mut settings = Settings::default();
        let config = cli.args.config(&mut settings);
        settings.finish(config).unwrap().plan
    }

    /// A plan's values, as the help writes them.
    fn written(plan: &CheckPlan) -> [String; 6] {
        let sizes: Vec<_> = plan.body_sizes.iter().map(u64::to_string).collect();
        let gaps = plan.gaps.iter().map(|gap| humantime::format_duration(*gap));
        let gaps: Vec<_> = gaps.map(|gap| gap.to_string()).collect();
        [
            plan.method.clone(),
            sizes.join(","),
            gaps.join(","),
            plan.trials.to_string(),
            humantime::format_duration(plan.timeout).to_string(),
            humantime::format_duration(plan.retry).to_string(),
        ]
    }

    #[test]
    fn the_help_states_the_defaults_of_the_plan() {
        use clap::CommandFactory as _;
        let help = Cli::command().render_long_help().to_string();
        let help: Vec<_> = help.split_whitespace().collect();
        let help = help.join(" ");
        let nowhere = || Target::from(std::net::SocketAddr::from(([127, 0, 0, 1], 80)));
        let server = written(&CheckPlan::new(nowhere()));
        let proxy = written(&CheckPlan::through(nowhere()));
        let through = ["--through", "http://h/", "--upstream-listen", "h:1"];
        assert_eq!(written(&plan(&["http://h/"])), server);
        assert_eq!(written(&plan(&through)), proxy);

        let [method, sizes, gaps, trials, timeout, retry] = server;
        let [_, proxy_sizes, _, proxy_trials, ..] = proxy;
        for part in [
            format!("[default: {method}]"),
            format!("[default: {sizes}; with --through {proxy_sizes}]"),
            format!("[default: {gaps}]"),
            format!("[default: {trials}; with --through {proxy_trials} of each size]"),
            format!("[default: {timeout}]"),
            format!("[default: {retry}]"),
        ] {
            assert!(help.contains(&part), "{part:?} is missing in:\n{help}");
        }
    }
}
