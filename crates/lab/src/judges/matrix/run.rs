//! Goes through a list: starts each entry, checks it, stops it.

use std::time::{Duration, Instant, SystemTime};

use tokio::net::TcpListener;

use super::list::{EntryKind, MatrixEntry, MatrixList};
use super::listener;
use super::place::EntryPlace;
use super::placeholders::filled;
use super::report::{Matrix, ProxyRow, ServerRow};
use crate::judges::check::{self, Address, CheckPlan, Target, through};
use crate::shared::program::{RunningProgram, orphans, own_directory, ready, version_of};

/// Time from SIGTERM to SIGKILL.
pub(super) const STOP_LIMIT: Duration = Duration::from_secs(5);

/// Checks each entry of the list, one after the other. `progress` is called with the entry's number, with how much of the
/// entry's check is done, and with how much there is to do. To stop early, drop the future: the running program is killed
/// with its process group.
///
/// Programs that lose their parent become children of this process, and after an entry every child of this process is
/// ended: don't call this in a process that has other children.
pub async fn run(list: &MatrixList, progress: impl Fn(usize, u64, u64)) -> Matrix {
    orphans::adopt();
    let start = Instant::now();
    let mut matrix = Matrix {
        date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        servers: Vec::new(),
        proxies: Vec::new(),
        seconds: 0.0,
    };
    for (number, entry) in list.entries.iter().enumerate() {
        progress(number, 0, 1);
        let (name, version) = (entry.name.clone(), version(entry).await);
        let progress = |done, all| progress(number, done, all);
        match entry.kind {
            EntryKind::Server => {
                let (check, problem) = split(server(list, entry, progress).await);
                matrix.servers.push(ServerRow {
                    name,
                    version,
                    check,
                    problem,
                });
            }
            EntryKind::Proxy => {
                let (through, problem) = split(proxy(list, entry, progress).await);
                matrix.proxies.push(ProxyRow {
                    name,
                    version,
                    through,
                    problem,
                });
            }
        }
    }
    matrix.seconds = start.elapsed().as_secs_f64();
    matrix
}

fn split<T>(result: Result<T, String>) -> (Option<T>, Option<String>) {
    match result {
        Ok(report) => (Some(report), None),
        Err(problem) => (None, Some(problem)),
    }
}

async fn server(
    list: &MatrixList,
    entry: &MatrixEntry,
    progress: impl Fn(u64, u64),
) -> Result<check::CheckReport, String> {
    let place = EntryPlace::new(entry, None).map_err(|error| format!("{error:#}"))?;
    let mut plan = CheckPlan::new(target(entry, &place.address));
    plan.method.clone_from(&entry.method);
    plan.scenarios.clone_from(&list.check.scenarios);
    plan.trials = list.check.trials.unwrap_or(plan.trials);
    checked(entry, &place, async {
        check::run(&plan, progress).await.map_err(chain)
    })
    .await
}

async fn proxy(
    list: &MatrixList,
    entry: &MatrixEntry,
    progress: impl Fn(u64, u64),
) -> Result<through::ThroughReport, String> {
    let listener = TcpListener::bind("127.0.0.1:0").await;
    let upstream = listener.and_then(|listener| Ok((listener.local_addr()?, listener)));
    let (address, listener) =
        upstream.map_err(|error| format!("no port for an upstream: {error}"))?;
    let place = EntryPlace::new(entry, Some(address)).map_err(|error| format!("{error:#}"))?;
    let mut plan = CheckPlan::through(target(entry, &place.address));
    plan.method.clone_from(&entry.method);
    plan.trials = list.check.clients.unwrap_or(plan.trials);
    checked(entry, &place, async {
        through::run(&plan, listener, progress).await.map_err(chain)
    })
    .await
}

/// Starts the program, waits until it is ready, checks it, stops it.
async fn checked<T>(
    entry: &MatrixEntry,
    place: &EntryPlace,
    check: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    listener::ensure_free(&place.address).await?;
    let words: Vec<_> = entry
        .command
        .iter()
        .map(|word| place.filled(word))
        .collect();
    let variables = entry.environment.iter();
    let variables = variables.map(|(name, value)| (name.clone(), place.filled(value)));
    let mut running = RunningProgram::start(&words, &entry.directory, variables)?;
    let ready = ready::wait(
        &mut running,
        &place.address,
        entry.ready.as_deref(),
        entry.ready_within,
    )
    .await;
    let result = match ready.and_then(|()| listener::ensure_is_entry(&place.address, running.id()))
    {
        Ok(()) => {
            let result = check.await;
            if result.is_err() {
                running.wait_for_end().await;
            }
            // If the server died during the check, the check's result does not show the server's behaviour.
            match running.ended("during the check") {
                Some(how) => Err(running.with_output(&how)),
                None => result,
            }
        }
        Err(problem) => Err(problem),
    };
    running.stop(STOP_LIMIT).await;
    result
}

/// The version that the entry's command prints.
async fn version(entry: &MatrixEntry) -> Option<String> {
    let bin = [("bin", own_directory().ok()?.display().to_string())];
    let words = entry.version.iter().map(|word| filled(word, &bin));
    version_of(&words.collect::<Vec<_>>(), &entry.directory).await
}

fn chain(error: impl Into<anyhow::Error>) -> String {
    format!("{:#}", error.into())
}

fn target(entry: &MatrixEntry, address: &Address) -> Target {
    let host = match address {
        Address::Tcp(address) => address.to_string(),
        Address::Unix(_) => "localhost".to_owned(),
    };
    Target {
        address: address.clone(),
        host,
        path: entry.path.clone(),
    }
}
