//! One proxy's turn: it is started, loaded, measured and stopped.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use rstlab_cli::grouped;
use tokio_util::sync::CancellationToken;

use super::cases::BenchCase;
use super::cost::ProxyProcesses;
use super::proxies::{ProxyPlace, ProxySetup};
use crate::makes::load::{self, Extent, LoadPlan, LoadReport};
use crate::shared::program::{RunningProgram, free_address, ready};
use crate::shared::target::{Address, Target};

/// How long a proxy may take to listen.
const READY_LIMIT: Duration = Duration::from_secs(20);

/// Limit of a request. On a busy machine 4,096 requests at once take their time, and that is no failure.
const REQUEST_LIMIT: Duration = Duration::from_secs(300);

/// Time from SIGTERM to SIGKILL.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// What one turn is about.
#[derive(Debug)]
pub(super) struct BenchTurn<'a> {
    pub(super) case: &'a BenchCase,
    pub(super) proxy: &'a ProxySetup,
    pub(super) workers: usize,
    pub(super) upstream: SocketAddr,
    /// `--requests`.
    pub(super) requests: u64,
}

/// The figures of one turn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct TurnFigures {
    pub(super) cpu_us: f64,
    pub(super) requests_per_second: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    pub(super) memory_bytes: f64,
}

impl BenchTurn<'_> {
    /// Takes the turn. After `stop` the figures are not those of a whole turn.
    ///
    /// # Errors
    /// The proxy does not start, ends, or loses a response; the text says which.
    pub(super) async fn take(&self, stop: &CancellationToken) -> Result<TurnFigures, String> {
        let directory = tempfile::Builder::new().prefix("rstlab-").tempdir();
        let directory = directory.map_err(|error| format!("no temporary directory: {error}"))?;
        let listen = free_address().map_err(|error| format!("no free port: {error}"))?;
        let start = self.proxy.prepare(&ProxyPlace {
            directory: directory.path(),
            listen,
            upstream: self.upstream,
            kept: self.case.kept,
            workers: self.workers,
        });
        let start = start.map_err(|error| format!("no configuration: {error}"))?;
        let mut running = RunningProgram::start(&start.words, Path::new(""), start.variables)?;
        let result = self
            .when_ready(&mut running, listen, start.processes, stop)
            .await;
        running.stop(STOP_LIMIT).await;
        result
    }

    async fn when_ready(
        &self,
        running: &mut RunningProgram,
        listen: SocketAddr,
        processes: usize,
        stop: &CancellationToken,
    ) -> Result<TurnFigures, String> {
        ready::wait(running, &Address::Tcp(listen), None, READY_LIMIT).await?;
        let leader = running.id().ok_or("it has ended")?;
        let processes = ProxyProcesses::find(leader, processes).await?;
        let result = self.measure(&processes, listen, stop).await;
        if result.is_err() {
            running.wait_for_end().await;
        }
        // If the proxy ended, that is why responses are missing.
        match running.ended("during its turn") {
            Some(how) => Err(running.with_output(&how)),
            None => result,
        }
    }

    async fn measure(
        &self,
        processes: &ProxyProcesses,
        listen: SocketAddr,
        stop: &CancellationToken,
    ) -> Result<TurnFigures, String> {
        let plan = LoadPlan {
            extent: Extent::Requests(self.case.requests(self.requests)),
            warm_up: self.case.warm_up(self.requests),
            connections: self.case.connections,
            body_bytes: self.case.post,
            timeout: REQUEST_LIMIT,
            ..LoadPlan::new(Target::from(listen))
        };
        let before = OnceLock::new();
        let report = load::run_until(&plan, stop.clone(), |done| {
            if done == 0 {
                before.get_or_init(|| processes.cpu_time());
            }
        })
        .await;
        let before = before.into_inner().ok_or("interrupted")??;
        let cpu = processes.cpu_time()?.saturating_sub(before);
        let memory = processes.peak_memory_bytes()?;
        figures(&report, cpu, memory)
    }
}

fn figures(report: &LoadReport, cpu: Duration, memory: u64) -> Result<TurnFigures, String> {
    let latency = report
        .latency_us
        .filter(|_| report.status_2xx_3xx == report.requests);
    let Some(latency) = latency else {
        let (bad, all) = (report.requests - report.status_2xx_3xx, report.requests);
        let first = report.failures.first();
        let why = first.map(|it| format!(" ({}, {})", it.outcome, it.error));
        let (bad, all, why) = (grouped(bad), grouped(all), why.unwrap_or_default());
        return Err(format!("{bad} of {all} requests got no whole 200{why}"));
    };
    let requests = report.requests as f64;
    Ok(TurnFigures {
        cpu_us: cpu.as_secs_f64() * 1e6 / requests,
        requests_per_second: requests / report.seconds,
        p50_us: latency.p50 as f64,
        p99_us: latency.p99 as f64,
        memory_bytes: memory as f64,
    })
}
