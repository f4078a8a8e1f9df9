//! Takes the turns of a bench: in each case one of each proxy, and then the next round.

use std::path::Path;
use std::time::{Instant, SystemTime};

use rstlab_cli::grouped;
use rstlab_wire::accept;
use tokio_util::sync::CancellationToken;

use super::args::BenchConfig;
use super::cases::BenchCase;
use super::proxies::ProxySetup;
use super::report::{BenchReport, BenchedCase, BenchedProxy, ProxyTurns, rows};
use super::turn::BenchTurn;
use super::upstream::BenchUpstream;
use crate::shared::program::{orphans, version_of};

/// Descriptors of a client, of its upstream connection, and of a client connection that ends and is still watched.
const DESCRIPTORS_EACH: u64 = 3;

/// A bench that is under way.
pub(super) struct BenchRun<'a, P> {
    pub(super) config: &'a BenchConfig,
    pub(super) stop: CancellationToken,
    /// Called before each turn with its number, the number of turns, and its words.
    pub(super) progress: P,
}

/// Finds the proxies whose programs are there, and the names of peers that are not.
pub(super) async fn versions(
    proxies: &[&'static ProxySetup],
) -> anyhow::Result<(Vec<(&'static ProxySetup, BenchedProxy)>, Vec<String>)> {
    // A program that loses its parent becomes a child of this process, and is ended after its turn.
    orphans::adopt();
    let (mut found, mut missing) = (Vec::new(), Vec::<String>::new());
    for proxy in proxies {
        let version = version_of(&proxy.version_command()?, Path::new("")).await;
        if version.is_none() && proxy.is_peer() {
            if !missing.iter().any(|name| name == proxy.program) {
                missing.push(proxy.program.to_owned());
            }
            continue;
        }
        let benched = BenchedProxy {
            name: proxy.name.to_owned(),
            version,
            settings: proxy.words.to_owned(),
            is_peer: proxy.is_peer(),
        };
        found.push((*proxy, benched));
    }
    Ok((found, missing))
}

impl<P: Fn(u64, u64, String)> BenchRun<'_, P> {
    /// Takes every turn; `None` if the run was interrupted.
    ///
    /// # Errors
    /// There is no port for the upstream.
    pub(super) async fn run(&self) -> anyhow::Result<Option<BenchReport>> {
        let start = Instant::now();
        let date = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let (proxies, missing) = versions(&self.config.proxies).await?;
        let (setups, proxies): (Vec<_>, Vec<_>) = proxies.into_iter().unzip();
        let mut cases = Vec::new();
        for case in &self.config.cases {
            for &workers in &self.config.workers {
                let all = self.case(case, workers, &setups, cases.len()).await?;
                if self.stop.is_cancelled() {
                    return Ok(None);
                }
                let (best_peer, rows) = rows(all);
                cases.push(BenchedCase {
                    name: case.name.to_owned(),
                    load: case.words(),
                    workers,
                    requests: case.requests(self.config.requests),
                    best_peer,
                    rows,
                });
            }
        }
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Ok(Some(BenchReport {
            date,
            kernel: kernel.trim().to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            debug_build: cfg!(debug_assertions),
            rounds: self.config.rounds,
            proxies,
            missing,
            cases,
            seconds: start.elapsed().as_secs_f64(),
        }))
    }

    /// The rounds of a case; `done` cases were done before.
    async fn case(
        &self,
        case: &BenchCase,
        workers: usize,
        proxies: &[&'static ProxySetup],
        done: usize,
    ) -> anyhow::Result<Vec<ProxyTurns>> {
        let upstream = BenchUpstream::start(case).await?;
        let room = accept::capacity(DESCRIPTORS_EACH, 0);
        let turns = match room >= case.connections {
            true => Ok(Vec::new()),
            false => Err(format!(
                "{} connections need {} open files (ulimit -n)",
                grouped(case.connections as u64),
                grouped(case.connections as u64 * DESCRIPTORS_EACH)
            )),
        };
        let mut all: Vec<_> = proxies
            .iter()
            .map(|proxy| ProxyTurns {
                proxy: proxy.name,
                is_peer: proxy.is_peer(),
                turns: turns.clone(),
            })
            .collect();
        let each = self.config.rounds * proxies.len();
        let of = each * self.config.cases.len() * self.config.workers.len();
        for round in 0..self.config.rounds {
            for (number, (one, proxy)) in all.iter_mut().zip(proxies).enumerate() {
                let Ok(turns) = &mut one.turns else { continue };
                if self.stop.is_cancelled() {
                    return Ok(all);
                }
                let turn_number = done * each + round * proxies.len() + number;
                let words = format!("{}, workers {workers}: {}", case.name, proxy.name);
                (self.progress)(turn_number as u64, of as u64, words);
                let turn = BenchTurn {
                    case,
                    proxy,
                    workers,
                    upstream: upstream.address,
                    requests: self.config.requests,
                };
                match turn.take(&self.stop).await {
                    Ok(figures) => turns.push(figures),
                    Err(problem) => one.turns = Err(problem),
                }
            }
        }
        Ok(all)
    }
}
