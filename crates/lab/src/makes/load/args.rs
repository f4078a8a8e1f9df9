//! The settings of `rstlab load`, and its run from the look-up of the host to the printed report.

use std::net::Ipv4Addr;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use rstlab_cli::{Settings, block_on, stop_on_signals};
use rstlab_wire::accept;

use super::text::LoadText;
use super::{Extent, LoadPlan, MAX_CONNECTIONS, RequestWrites, run_until};
use crate::shared::given::given;
use crate::shared::output::{print, progress_bar};
use crate::shared::target::Target;
use crate::shared::url::Url;

/// Largest value of `--rate`.
const MAX_RATE: f64 = 1_000_000.0;

/// Send requests, and say of each response whether it came whole
///
/// Other load generators count errors. This one tells them apart: a response cut by a reset or by an early end of the
/// stream, no response, a refused connection, a time limit. It names the system call that failed, its errno, how far
/// the exchange had come, and the bytes that were lost. A reset after a whole response is called harmless.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "A kept connection may end between two requests: that is no failure, and the next request goes out \
                  on a fresh connection. If a kept connection ends before the first byte of an answer, a GET is \
                  sent again, once.\n\
                  Latency counts from connecting to the last byte; with --rate, from the moment the request was due.\n\
                  Exit codes: 0 every response came whole (whatever its status), 1 something was lost or refused, \
                  or the run was interrupted, 2 bad settings."
)]
pub struct LoadArgs {
    /// An http:// URL, such as http://127.0.0.1:8080/path?query
    url: String,

    /// Number of requests, 1 or more; the run ends after an hour in any case
    #[arg(
        long,
        default_value = "100",
        conflicts_with = "duration",
        value_name = "N"
    )]
    requests: String,

    /// Send requests for this time in place of a number: 10s, 5m, at most 1h
    #[arg(long, value_name = "TIME")]
    duration: Option<String>,

    /// Connections at once, 1 to 10000
    #[arg(long, default_value = "10", value_name = "N")]
    connections: String,

    /// Requests a second over all connections [default: as fast as the answers come]
    #[arg(long, value_name = "N")]
    rate: Option<String>,

    /// POST a body of this many bytes [default: GET without a body]
    #[arg(long, value_name = "BYTES")]
    body: Option<String>,

    /// Write head and body in two calls, as a proxy does that does not buffer requests; each request then has a
    /// connection of its own
    #[arg(long, requires = "body")]
    split: bool,

    /// Pause between the two writes: 500us, 1ms [default: 0ms]
    #[arg(long, requires = "split", value_name = "TIME")]
    gap: Option<String>,

    /// Limit for each request, from connecting to the last byte of the response
    #[arg(long, default_value = "30s", value_name = "TIME")]
    timeout: String,

    /// Print one JSON object in place of text (crates/lab/schema/load.json describes it)
    #[arg(long)]
    json: bool,
}

/// The settings of a load, checked.
#[derive(Debug)]
pub struct LoadConfig {
    url: Url,
    /// The plan without the server's address, which is looked up when the run begins.
    plan: LoadPlan,
    json: bool,
}

impl LoadArgs {
    /// The settings, or `None` if one of them is bad.
    pub fn config(&self, settings: &mut Settings) -> Option<LoadConfig> {
        let allowed = "an http:// URL with a host and without a user name";
        let url = settings.read("URL", &self.url, allowed, Url::parse);
        let extent = self.extent(settings);

        // Beside each connection another one may still be watched for a late reset.
        let most = MAX_CONNECTIONS.min(accept::capacity(2, 0));
        let allowed = format!("1 to {most} (of {MAX_CONNECTIONS}, and open files)");
        let connections = settings.read("--connections", &self.connections, &allowed, |text| {
            text.parse().ok().filter(|count| (1..=most).contains(count))
        });
        let allowed = format!("requests a second, over 0 and at most {MAX_RATE}: 0.5, 200");
        let rate = self.rate.as_deref().map(|text| {
            settings.read("--rate", text, &allowed, |text| {
                text.parse()
                    .ok()
                    .filter(|rate| *rate > 0.0 && *rate <= MAX_RATE)
            })
        });
        let body = self.body.as_deref();
        let body_bytes = body.map(|text| settings.bytes("--body", text));
        let gap = self.gap.as_deref();
        let gap = gap.map(|text| settings.time("--gap", text));
        let timeout = settings.time_limit("--timeout", &self.timeout);

        let (url, gap) = (url?, given(gap)?.unwrap_or_default());
        let plan = LoadPlan {
            target: Target::new(&url, (Ipv4Addr::UNSPECIFIED, 0).into()),
            extent: extent?,
            warm_up: 0,
            connections: connections?,
            rate: given(rate)?,
            body_bytes: given(body_bytes)?,
            writes: match self.split {
                true => RequestWrites::Split { gap },
                false => RequestWrites::Joined,
            },
            timeout: timeout?,
        };
        let json = self.json;
        Some(LoadConfig { url, plan, json })
    }

    fn extent(&self, settings: &mut Settings) -> Option<Extent> {
        if let Some(duration) = &self.duration {
            let duration = settings.time_limit("--duration", duration);
            return duration.map(Extent::Duration);
        }
        let allowed = "a number of requests, 1 or more";
        let requests = settings.read("--requests", &self.requests, allowed, |text| {
            text.parse().ok().filter(|count| *count > 0)
        });
        requests.map(Extent::Requests)
    }
}

/// Looks up the host, runs the load, and prints the report.
///
/// # Errors
/// The host does not resolve, the server speaks TLS or HTTP/2, or standard output is closed.
pub fn execute(config: &LoadConfig) -> anyhow::Result<ExitCode> {
    block_on(load(config))
}

async fn load(config: &LoadConfig) -> anyhow::Result<ExitCode> {
    let mut plan = config.plan.clone();
    let address = config.url.address(plan.timeout).await;
    plan.target.address = address.with_context(|| format!("no load for {}", config.url))?;
    let bar = match plan.extent {
        Extent::Requests(requests) => {
            let bar = progress_bar(false, "{bar:40} {pos}/{len} requests, {eta} to go");
            bar.set_length(requests);
            bar
        }
        Extent::Duration(time) => {
            let time = time.as_secs_f64();
            let of = format!("{{spinner}} {{pos}} requests, {{elapsed}} of {time} s");
            progress_bar(false, &of)
        }
    };
    let report = run_until(&plan, stop_on_signals()?, |done| bar.set_position(done)).await;
    bar.finish_and_clear();
    if let Some(protocol) = report.other_protocol {
        bail!(
            "cannot read what {} answers: {protocol}",
            plan.target.address
        );
    }

    print([if config.json {
        serde_json::to_string(&report)? + "\n"
    } else {
        format!("{}\n{}", config.url, LoadText(&report))
    }])?;
    Ok(if report.all_whole() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: LoadArgs,
    }

    fn config(flags: &[&str]) -> Result<LoadConfig, String> {
        let cli = Cli::try_parse_from([&["load"], flags].concat()).map_err(|e| e.to_string())?;
        let mut settings = Settings::default();
        let config = cli.args.config(&mut settings);
        settings.finish(config).map_err(|bad| bad.to_string())
    }

    #[test]
    fn the_defaults_are_the_documented_ones() {
        let config = config(&["http://127.0.0.1/"]).unwrap().plan;
        let plan = LoadPlan::new(
            "127.0.0.1:80"
                .parse::<std::net::SocketAddr>()
                .unwrap()
                .into(),
        );
        assert_eq!(config.extent, plan.extent);
        assert_eq!(config.connections, plan.connections);
        assert_eq!(
            (config.rate, config.body_bytes),
            (plan.rate, plan.body_bytes)
        );
        assert_eq!((config.writes, config.timeout), (plan.writes, plan.timeout));
    }

    #[test]
    fn every_flag_is_read() {
        let flags = "http://h/ --duration 2s --connections 3 --rate 0.5 --body 1KiB --split --gap 1ms --timeout 4s --json";
        let config = config(&flags.split(' ').collect::<Vec<_>>()).unwrap();
        let (config, json) = (config.plan, config.json);
        let gap = Duration::from_millis(1);
        assert_eq!(config.extent, Extent::Duration(Duration::from_secs(2)));
        assert_eq!((config.connections, config.rate), (3, Some(0.5)));
        assert_eq!(
            (config.body_bytes, config.writes),
            (Some(1024), RequestWrites::Split { gap })
        );
        assert_eq!((config.timeout, json), (Duration::from_secs(4), true));
    }

    #[test]
    fn every_bad_value_is_named() {
        let flags = "https://h/ --requests 0 --connections 0 --rate nan --body x --split --gap 1 --timeout 0s";
        let text = config(&flags.split(' ').collect::<Vec<_>>()).unwrap_err();
        for part in [
            "7 bad settings",
            "URL=\"https://h/\"; allowed: an http:// URL",
            "--requests=\"0\"",
            "--connections=\"0\"; allowed: 1 to ",
            "--rate=\"nan\"",
            "--body=\"x\"",
            "--gap=\"1\"",
            "--timeout=\"0s\"",
        ] {
            assert!(text.contains(part), "{part} is missing in:\n{text}");
        }
        for bad in [
            "--duration=2h",
            "--duration=0s",
            "--connections=10001",
            "--rate=0",
        ] {
            assert!(config(&["http://h/", bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn flags_that_would_do_nothing_are_refused() {
        for flags in [
            "--split",
            "--gap=1ms --body=1",
            "--requests=1 --duration=1s",
        ] {
            let flags = [
                &["http://h/"],
                flags.split(' ').collect::<Vec<_>>().as_slice(),
            ]
            .concat();
            assert!(config(&flags).is_err(), "{flags:?}");
        }
    }
}
