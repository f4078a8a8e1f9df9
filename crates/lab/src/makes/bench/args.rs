//! The command line of `rstlab bench`.

use std::path::PathBuf;

use rstlab_cli::Settings;

use super::cases::{BenchCase, CASES};
use super::proxies::{PEERS, PROXIES, ProxySetup};

/// The most rounds.
const MAX_ROUNDS: usize = 100;

/// The most requests of a turn.
const MAX_REQUESTS: u64 = 1_000_000;

/// The most workers of a proxy.
const MAX_WORKERS: usize = 64;

/// Rounds, requests of a turn and workers, without and with `--quick`.
const USUAL: [&str; 3] = ["5", "4000", "1,2"];
const QUICK: [&str; 3] = ["3", "1000", "1"];

/// Time of a turn beside its requests: the proxy is started and stopped.
const TURN_SECONDS: f64 = 0.2;

/// Compare rstlab-proxy with nginx and HAProxy: CPU time, speed and memory under the same load
///
/// Starts each proxy in front of the same upstream, loads it, measures it, stops it, and goes on with the next proxy;
/// after the last proxy the next round begins. Prints the median of the rounds. rstlab-proxy takes part with its
/// defaults, with its own sockets as its only evidence, and then also with splice; nginx with its default buffers and
/// with buffers of 64 KiB; HAProxy with its default options and with splice.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "CPU time is that of all processes of the proxy, in the program and in the kernel. It hardly depends on \
                  what else the machine does; requests/s and latencies do, since proxy, upstream and load share the \
                  cores. Settings of rstlab-proxy may be given as variables: PROXY_WRITES=joined rstlab bench.\n\
                  Exit codes: 0 every proxy has figures, 1 a turn failed (the report says why) or the run was \
                  interrupted, 2 bad settings. A peer that is not in PATH is named; that is no failure."
)]
pub struct BenchArgs {
    /// Compare with these: nginx, haproxy, or none
    #[arg(long, value_name = "LIST", default_value = "nginx,haproxy")]
    peers: String,

    /// Run these cases [default: all of them; with --quick: some]
    #[arg(long, value_name = "LIST")]
    cases: Option<String>,

    /// Workers of each proxy, one run of all cases for each number [default: 1,2; with --quick: 1]
    #[arg(long, value_name = "LIST")]
    workers: Option<String>,

    /// Turns of each proxy in each case [default: 5; with --quick: 3]
    #[arg(long, value_name = "N")]
    rounds: Option<String>,

    /// Requests of a turn; those with 600 kB get a quarter, those with 64 MB a 500th, and each connection at least two
    /// [default: 4000; with --quick: 1000]
    #[arg(long, value_name = "N")]
    requests: Option<String>,

    /// Take less than a minute: few cases, one worker, few rounds
    #[arg(long)]
    quick: bool,

    /// Print the cases and the proxies, and do nothing else
    #[arg(long)]
    list: bool,

    /// Write the report as JSON (crates/lab/schema/bench.json describes it); - is standard output
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Write the report as Markdown; - is standard output
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,

    /// Print nothing but errors
    #[arg(long)]
    quiet: bool,
}

/// The settings of a bench, checked.
#[derive(Debug)]
pub struct BenchConfig {
    pub(super) proxies: Vec<&'static ProxySetup>,
    pub(super) cases: Vec<&'static BenchCase>,
    pub(super) workers: Vec<usize>,
    pub(super) rounds: usize,
    pub(super) requests: u64,
    pub(super) list: bool,
    pub(super) json: Option<PathBuf>,
    pub(super) markdown: Option<PathBuf>,
    pub(super) quiet: bool,
}

impl BenchArgs {
    /// The settings, or `None` if one of them is bad.
    pub fn config(&self, settings: &mut Settings) -> Option<BenchConfig> {
        let [rounds, requests, workers] = if self.quick { QUICK } else { USUAL };
        let allowed = "nginx, haproxy, separated by commas, or none";
        let peers = settings.read("--peers", &self.peers, allowed, |text| match text {
            "none" => Some(Vec::new()),
            _ => each(text, |name| PEERS.into_iter().find(|peer| *peer == name)),
        });
        let names: Vec<_> = CASES.iter().map(|case| case.name).collect();
        let cases = match &self.cases {
            Some(text) => settings.read("--cases", text, &names.join(", "), |text| {
                each(text, |name| CASES.iter().find(|case| case.name == name))
            }),
            None => Some(
                CASES
                    .iter()
                    .filter(|case| case.quick || !self.quick)
                    .collect(),
            ),
        };
        let text = self.workers.as_deref().unwrap_or(workers);
        let allowed = format!("numbers from 1 to {MAX_WORKERS}, separated by commas");
        let workers = settings.read("--workers", text, &allowed, |text| {
            each(text, |word| {
                word.parse()
                    .ok()
                    .filter(|count| (1..=MAX_WORKERS).contains(count))
            })
        });
        let text = self.rounds.as_deref().unwrap_or(rounds);
        let allowed = format!("a number from 1 to {MAX_ROUNDS}");
        let rounds = settings.read("--rounds", text, &allowed, |text| {
            text.parse()
                .ok()
                .filter(|count| (1..=MAX_ROUNDS).contains(count))
        });
        let text = self.requests.as_deref().unwrap_or(requests);
        let allowed = format!("a number from 1 to {MAX_REQUESTS}");
        let requests = settings.read("--requests", text, &allowed, |text| {
            text.parse()
                .ok()
                .filter(|count| (1..=MAX_REQUESTS).contains(count))
        });
        let peers = peers?;
        let proxies = PROXIES.iter();
        let proxies = proxies.filter(|one| !one.is_peer() || peers.contains(&one.program));
        Some(BenchConfig {
            proxies: proxies.collect(),
            cases: cases?,
            workers: workers?,
            rounds: rounds?,
            requests: requests?,
            list: self.list,
            json: self.json.clone(),
            markdown: self.markdown.clone(),
            quiet: self.quiet,
        })
    }
}

/// The values of a list; `None` if one is bad or there twice.
fn each<T: PartialEq>(list: &str, value: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
    let mut values = Vec::new();
    for word in list.split(',') {
        let value = value(word.trim()).filter(|value| !values.contains(value))?;
        values.push(value);
    }
    Some(values)
}

impl BenchConfig {
    /// The cases and the proxies, in words.
    pub(super) fn words(&self) -> String {
        let cases = self
            .cases
            .iter()
            .map(|case| format!("{:16} {}\n", case.name, case.words()));
        let proxies = self.proxies.iter();
        let proxies = proxies.map(|proxy| format!("{:22} {}\n", proxy.name, proxy.words));
        format!(
            "{}\n{}",
            cases.collect::<String>(),
            proxies.collect::<String>()
        )
    }

    /// How long the run takes, roughly.
    pub(super) fn announcement(&self) -> String {
        let cases = self.cases.iter();
        let all = cases.map(|case| TURN_SECONDS + case.estimated_seconds(self.requests));
        let turns = self.workers.len() * self.rounds * self.proxies.len();
        let seconds = all.sum::<f64>() * turns as f64;
        let about = match seconds {
            ..90.0 => format!("{seconds:.0} s"),
            _ => format!("{:.0} minutes", seconds / 60.0),
        };
        let turns = turns * self.cases.len();
        format!("rstlab: {turns} turns, about {about} on two cores")
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: BenchArgs,
    }

    fn config(flags: &[&str]) -> Result<BenchConfig, String> {
        let cli = Cli::try_parse_from([&["bench"], flags].concat()).map_err(|e| e.to_string())?;
        let mut settings = Settings::default();
        let config = cli.args.config(&mut settings);
        settings.finish(config).map_err(|bad| bad.to_string())
    }

    #[test]
    fn every_bad_value_is_named() {
        let flags = "--peers caddy --cases post-2k --workers 0 --rounds x --requests 0";
        let text = config(&flags.split(' ').collect::<Vec<_>>()).unwrap_err();
        for part in [
            "5 bad settings",
            "--peers=\"caddy\"; allowed: nginx, haproxy",
            "--cases=\"post-2k\"; allowed: post-600k, ",
            "--workers=\"0\"; allowed: numbers from 1 to 64",
            "--rounds=\"x\"; allowed: a number from 1 to 100",
            "--requests=\"0\"; allowed: a number from 1 to 1000000",
        ] {
            assert!(text.contains(part), "{part} is missing in:\n{text}");
        }
        for bad in [
            "--workers=1,1",
            "--workers=",
            "--cases=post-1k,",
            "--rounds=101",
        ] {
            assert!(config(&[bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn quick_has_fewer_turns_and_what_is_given_besides_holds() {
        let all = config(&[]).unwrap();
        assert_eq!((all.rounds, all.requests, all.workers.len()), (5, 4000, 2));
        assert_eq!(
            (all.cases.len(), all.proxies.len()),
            (CASES.len(), PROXIES.len())
        );
        let quick = config(&["--quick", "--rounds=1", "--peers=none"]).unwrap();
        assert_eq!(
            (quick.rounds, quick.requests, quick.workers.len()),
            (1, 1000, 1)
        );
        assert_eq!((quick.cases.len(), quick.proxies.len()), (3, 3));
        let one = config(&["--cases=upload-64m, post-1k", "--peers", "haproxy"]).unwrap();
        let names: Vec<_> = one.cases.iter().map(|case| case.name).collect();
        assert_eq!(names, ["upload-64m", "post-1k"]);
        assert_eq!(one.proxies.len(), 5);
    }

    #[test]
    fn a_quick_run_is_announced_with_less_than_a_minute() {
        let announcement = config(&["--quick"]).unwrap().announcement();
        assert!(announcement.ends_with(" s on two cores"), "{announcement}");
    }
}
