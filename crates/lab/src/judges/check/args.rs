//! The command line of `rstlab check`.

use std::path::PathBuf;
use std::time::Duration;

use rstlab_cli::Settings;

use super::execute::{CheckConfig, CheckTask, Outputs};
use super::fail_on::FailOn;
use super::imitated::CLIENTS;
use super::pace::RequestPace;
use super::plan::CheckPlan;
use super::request_args::RequestArgs;
use super::route::RouteArgs;
use super::scenarios::{scenario_names, selected};
use crate::shared::given::given;
use crate::shared::target::{Address, Target};
use crate::shared::url::Url;

/// The most trials of a scenario with a client.
const MAX_TRIALS: u64 = 10_000;

/// The largest body, in bytes.
const MAX_BODY: u64 = 1024 * 1024 * 1024;

/// The most sizes, and the most gaps.
const MAX_VALUES: usize = 16;

/// The shortest limit of a whole check: trials that run when their time is up have 1.5 s to end.
const MIN_TIME: Duration = Duration::from_secs(2);

/// The most requests a second that can be asked for.
const MAX_RATE: f64 = 100_000.0;

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
                  Exit codes: 0 nothing was lost that is as bad as --fail-on says (with --fail-on reset: and no reset; \
                  with --baseline: nothing got worse; with --through: every client got the answer), 1 something was, 2 \
                  bad settings, no connection, no HTTP server there, no time for a trial, or most requests were answered \
                  with 401 or 429, 3 as 0, but not every scenario can tell (without --baseline). An interrupted check is never 0."
)]
pub struct CheckArgs {
    /// An http:// URL, such as http://127.0.0.1:8000/path?query
    #[arg(required_unless_present_any = ["through", "list"])]
    url: Option<String>,

    #[command(flatten)]
    request: RequestArgs,

    #[command(flatten)]
    route: RouteArgs,

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

    /// Run all scenarios but these (the URL stands before this option).
    #[arg(long, value_name = "NAME", num_args = 1.., conflicts_with = "scenario")]
    skip: Vec<String>,

    /// Play what one client does on the wire: its writes, its use of the connection, its version of HTTP, and what it does
    /// when a write fails. Without it, all scenarios run.
    ///   nginx, nginx-unbuffered, haproxy, envoy, traefik, apache, caddy, alb, curl, browser
    #[arg(long = "as", value_name = "CLIENT", verbatim_doc_comment)]
    #[arg(conflicts_with_all = ["through", "http1_0", "gaps"])]
    imitated: Option<String>,

    /// Print the scenarios, what each sends, and the rule that it tests.
    #[arg(long)]
    list: bool,

    /// What makes the exit code 1: a lost response of this severity or a worse one (critical, high, medium, low), or reset
    /// (any lost response, and any reset).
    #[arg(long, default_value = "high", value_name = "SEVERITY")]
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
    /// Limit of the whole check; what was not tried by then is named [default: 20 s, and 17 s for each further 50 trials]
    #[arg(long, value_name = "TIME", conflicts_with = "through")]
    max_time: Option<String>,

    /// The most requests a second, for a live server; the check takes as long as all its requests need then.
    #[arg(long, value_name = "N", conflicts_with = "through")]
    rate: Option<String>,

    /// Check a proxy in place of a server. rstlab is the upstream behind the proxy: it answers 401 as soon as it has a
    /// request's head, and closes. Counts how many clients get that answer while they upload.
    #[arg(long, value_name = "URL", requires = "upstream_listen")]
    #[arg(conflicts_with_all = ["url", "gaps", "scenario", "skip", "fail_on", "junit", "expect_status", "retry"])]
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

impl CheckArgs {
    /// The settings, or `None` if one of them is bad.
    pub fn config(&self, settings: &mut Settings) -> Option<CheckConfig> {
        if self.list {
            return Some(CheckConfig::List);
        }
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
        let mut scenarios = |flag: &str, given: &[String]| {
            let chosen = given.iter();
            all(chosen.map(|text| settings.choice(flag, text, &names).map(str::to_owned)))
        };
        let (chosen, skipped) = (
            scenarios("--scenario", &self.scenario),
            scenarios("--skip", &self.skip),
        );
        let fail_on = settings.choice("--fail-on", &self.fail_on, &FailOn::CHOICES);
        let clients: Vec<_> = CLIENTS.iter().map(|client| (client.name, client)).collect();
        let imitated = self.imitated.as_deref();
        let imitated = imitated.map(|text| settings.choice("--as", text, &clients));
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
        let max_time = self.max_time.as_deref().map(|text| {
            let time = settings.time_limit("--max-time", text)?;
            settings.read("--max-time", text, "at least 2s", |_| {
                (time >= MIN_TIME).then_some(time)
            })
        });
        let rate = self.rate.as_deref().map(|text| {
            let allowed = format!("a number of requests a second, up to {MAX_RATE}");
            settings.read("--rate", text, &allowed, rate)
        });
        let request = self.request.apply(settings, usual.clone());
        let route = self.route.route(settings);
        let request = request?;
        let plan = CheckPlan {
            body_sizes: sizes.unwrap_or_else(|| Some(request.body_sizes.clone()))?,
            gaps: gaps.unwrap_or(Some(usual.gaps))?,
            trials: trials.unwrap_or(Some(usual.trials))?,
            scenarios: chosen?,
            skip: skipped?,
            timeout: timeout?,
            max_time: given(max_time)?,
            pace: given(rate)?.map_or_else(RequestPace::default, RequestPace::a_second),
            expected_statuses: given(statuses)?.unwrap_or_default(),
            retry: retry?,
            imitated: given(imitated)?,
            ..request
        };
        let (flag, text) = match self.skip.is_empty() {
            true => ("--scenario", &self.scenario),
            false => ("--skip", &self.skip),
        };
        let allowed = "at least one scenario has to be left (and HTTP/1.0 has no chunks, kept connections or Expect)";
        let is_one = !selected(&plan).is_empty();
        settings.read(flag, &text.join(" "), allowed, |_| is_one.then_some(()))?;
        Some(CheckConfig::Check(Box::new(CheckTask {
            url: url?,
            route: route?,
            plan,
            upstream: given(upstream)?,
            fail_on: fail_on?,
            outputs: self.outputs.clone(),
        })))
    }
}

/// A pace, in requests a second.
fn rate(text: &str) -> Option<f64> {
    let rate: f64 = text.parse().ok()?;
    (rate > 0.0 && rate <= MAX_RATE).then_some(rate)
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
        match settings.finish(config).unwrap() {
            CheckConfig::Check(task) => task.plan,
            CheckConfig::List => panic!("the list was not asked for"),
        }
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
