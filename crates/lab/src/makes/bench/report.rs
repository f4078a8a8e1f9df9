//! The report of a bench: medians over the rounds, and the ratio to the best peer.

use schemars::JsonSchema;
use serde::Serialize;

use super::turn::TurnFigures;

/// Proxies under the same loads in turn.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(title = "rstlab bench --json")]
pub struct BenchReport {
    /// When the bench was begun, RFC 3339 in UTC.
    pub date: String,
    /// The release of the kernel, as `uname -r` prints it.
    pub kernel: String,
    /// Cores that the bench may use; proxy, upstream and load share them.
    pub cores: usize,
    /// rstlab is a debug build: its figures are not those of a release.
    pub debug_build: bool,
    /// Turns of each proxy in each case.
    pub rounds: usize,
    /// The proxies, in the order of their turns.
    pub proxies: Vec<BenchedProxy>,
    /// Peers that were asked for and are not in `PATH`.
    pub missing: Vec<String>,
    /// Each case with each number of workers.
    pub cases: Vec<BenchedCase>,
    /// How long the bench took.
    #[schemars(range(min = 0))]
    pub seconds: f64,
}

/// A proxy of a bench.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct BenchedProxy {
    /// Its name in the tables.
    pub name: String,
    /// The version that its program prints; null if it prints none.
    pub version: Option<String>,
    /// How it is configured.
    pub settings: String,
    /// It is not rstlab-proxy.
    pub is_peer: bool,
}

/// A case with a number of workers.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct BenchedCase {
    /// The case's name.
    pub name: String,
    /// The case in words.
    pub load: String,
    /// Workers of each proxy: threads or processes that carry connections.
    pub workers: usize,
    /// Requests of each turn that were counted, after those of the warm-up.
    pub requests: u64,
    /// The peer with the lowest median of CPU time; null if no peer has figures.
    pub best_peer: Option<String>,
    /// One for each proxy.
    pub rows: Vec<BenchRow>,
}

/// A proxy in a case: either figures or why there are none.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct BenchRow {
    /// The proxy's name.
    pub proxy: String,
    /// Its figures; null if a turn failed.
    pub figures: Option<BenchFigures>,
    /// Why there are none; null if there are.
    pub problem: Option<String>,
}

/// Figures of a proxy over the rounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub struct BenchFigures {
    /// CPU time of all its processes for each request, in microseconds.
    pub cpu_us_per_request: Spread,
    /// The CPU time as a multiple of the best peer's in the same round; null without a peer.
    pub cpu_to_best_peer: Option<Spread>,
    /// Requests a second.
    pub requests_per_second: Spread,
    /// Half of the responses took at most this many microseconds.
    pub p50_us: Spread,
    /// 99 of 100 responses took at most this many microseconds.
    pub p99_us: Spread,
    /// The sum of the peaks of its processes' resident memory, in bytes.
    pub peak_memory_bytes: Spread,
}

/// A figure over the rounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The lowest.
    pub min: f64,
    /// The highest.
    pub max: f64,
}

impl Spread {
    /// Of at least one figure.
    fn of(figures: impl Iterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = figures.collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = match sorted.len() % 2 {
            0 => (sorted[middle - 1] + sorted[middle]) / 2.0,
            _ => sorted[middle],
        };
        Some(Self { median, min, max })
    }
}

impl BenchReport {
    /// Whether every proxy has figures in every case.
    pub fn is_complete(&self) -> bool {
        let rows = self.cases.iter().flat_map(|case| &case.rows);
        rows.into_iter().all(|row| row.problem.is_none())
    }
}

/// The turns of a proxy in a case, one for each round, or why there are none.
#[derive(Debug)]
pub(super) struct ProxyTurns {
    pub(super) proxy: &'static str,
    pub(super) is_peer: bool,
    pub(super) turns: Result<Vec<TurnFigures>, String>,
}

/// The best peer's name, and the rows of a case.
pub(super) fn rows(all: Vec<ProxyTurns>) -> (Option<String>, Vec<BenchRow>) {
    let peers = all.iter().filter(|one| one.is_peer);
    let costs = peers.filter_map(|one| {
        let turns = one.turns.as_ref().ok()?;
        Some((Spread::of(turns.iter().map(|turn| turn.cpu_us))?, one))
    });
    let best = costs.min_by(|(a, _), (b, _)| a.median.total_cmp(&b.median));
    let best = best.and_then(|(_, one)| Some((one.proxy, one.turns.as_ref().ok()?.clone())));
    let (name, best) = best.unzip();
    let rows = all.into_iter().map(|one| {
        let figures = one.turns.and_then(|turns| {
            let figures = figures(&turns, best.as_deref());
            figures.ok_or_else(|| "it had no turn".to_owned())
        });
        BenchRow {
            proxy: one.proxy.to_owned(),
            problem: figures.as_ref().err().cloned(),
            figures: figures.ok(),
        }
    });
    let rows = rows.collect();
    (name.map(str::to_owned), rows)
}

fn figures(turns: &[TurnFigures], best: Option<&[TurnFigures]>) -> Option<BenchFigures> {
    let of = |figure: fn(&TurnFigures) -> f64| Spread::of(turns.iter().map(figure));
    // The two turns of a round had about the same neighbours on the machine.
    let pairs = best.map(|best| turns.iter().zip(best));
    Some(BenchFigures {
        cpu_us_per_request: of(|turn| turn.cpu_us)?,
        cpu_to_best_peer: pairs
            .and_then(|pairs| Spread::of(pairs.map(|(a, b)| a.cpu_us / b.cpu_us))),
        requests_per_second: of(|turn| turn.requests_per_second)?,
        p50_us: of(|turn| turn.p50_us)?,
        p99_us: of(|turn| turn.p99_us)?,
        peak_memory_bytes: of(|turn| turn.memory_bytes)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(proxy: &'static str, costs: &[f64]) -> ProxyTurns {
        let turns = costs.iter().map(|&cpu_us| TurnFigures {
            cpu_us,
            requests_per_second: 1e6 / cpu_us,
            p50_us: 1.0,
            p99_us: 2.0,
            memory_bytes: 3.0,
        });
        ProxyTurns {
            proxy,
            is_peer: proxy != "ours",
            turns: Ok(turns.collect()),
        }
    }

    #[test]
    fn the_median_is_the_middle_or_the_mean_of_the_two_middle_figures() {
        let median = |figures: &[f64]| Spread::of(figures.iter().copied()).map(|it| it.median);
        assert_eq!(median(&[5.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[5.0, 1.0, 2.0, 4.0]), Some(3.0));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn the_ratio_is_of_pairs_of_turns_to_the_peer_with_the_lowest_median() {
        let broken = ProxyTurns {
            turns: Err("not ready".to_owned()),
            ..turns("broken", &[])
        };
        let (best, rows) = rows(vec![
            turns("ours", &[100.0, 300.0, 90.0]),
            turns("slow", &[300.0, 300.0, 300.0]),
            turns("fast", &[100.0, 200.0, 100.0]),
            broken,
        ]);
        assert_eq!(best.as_deref(), Some("fast"));
        let ratios = rows
            .iter()
            .map(|row| Some(row.figures?.cpu_to_best_peer?.median));
        let ratios: Vec<_> = ratios.collect();
        assert_eq!(ratios, [Some(1.0), Some(3.0), Some(1.0), None]);
        let ours = rows[0].figures.unwrap().cpu_to_best_peer.unwrap();
        assert_eq!((ours.min, ours.max), (0.9, 1.5));
        assert_eq!(rows[3].problem.as_deref(), Some("not ready"));
    }

    #[test]
    fn without_a_peer_there_is_no_ratio() {
        let (best, rows) = rows(vec![turns("ours", &[100.0])]);
        assert_eq!(best, None);
        assert_eq!(rows[0].figures.unwrap().cpu_to_best_peer, None);
    }
}
