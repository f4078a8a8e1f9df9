//! `rstlab matrix`: starts each server and proxy of a list, checks it, stops it, and puts all of them into one table.
//!
//! `file` says what a list may hold and `reader` reads it, `place` fills the placeholders in, `process` starts and
//! stops, `orphans` ends what a program leaves behind, `ready` waits until somebody answers, `in_the_way` makes sure
//! that it is the program, `report` holds what came of it, and `cells` is what the terminal, Markdown and HTML have in
//! common.

mod args;
mod cells;
mod file;
mod html;
mod in_the_way;
mod markdown;
mod orphans;
mod place;
mod proc;
mod process;
mod reader;
mod ready;
mod report;
mod text;
mod version;

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use tokio::net::TcpListener;

pub use args::{Args, Config, execute};
pub use file::{BadFile, Entry, Kind, List};
pub use report::{Matrix, ProxyRow, ServerRow};

use crate::check::{self, Address, Plan, Target, through};
use place::Place;
use process::Running;

/// From SIGTERM to SIGKILL.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// Checks each entry of the list, one after the other. `progress` is told the entry's number and how much of how
/// much is done of it. To stop early, drop the future: what runs is killed, with its process group.
///
/// Programs that lose their parent become children of this process, and after an entry every child of it is ended: call
/// this where no others are.
pub async fn run(list: &List, progress: impl Fn(usize, u64, u64)) -> Matrix {
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
        let (name, version) = (entry.name.clone(), version::ask(entry).await);
        let progress = |done, all| progress(number, done, all);
        match entry.kind {
            Kind::Server => {
                let (check, problem) = split(server(list, entry, progress).await);
                matrix.servers.push(ServerRow {
                    name,
                    version,
                    check,
                    problem,
                });
            }
            Kind::Proxy => {
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
    list: &List,
    entry: &Entry,
    progress: impl Fn(u64, u64),
) -> Result<check::Report, String> {
    let place = Place::new(entry, None).map_err(|error| format!("{error:#}"))?;
    let mut plan = Plan::new(target(entry, &place.address));
    plan.method.clone_from(&entry.method);
    plan.scenarios.clone_from(&list.scenarios);
    plan.trials = list.trials.unwrap_or(plan.trials);
    checked(entry, &place, async {
        check::run(&plan, progress).await.map_err(chain)
    })
    .await
}

async fn proxy(
    list: &List,
    entry: &Entry,
    progress: impl Fn(u64, u64),
) -> Result<through::Report, String> {
    let listener = TcpListener::bind("127.0.0.1:0").await;
    let upstream = listener.and_then(|listener| Ok((listener.local_addr()?, listener)));
    let (address, listener) =
        upstream.map_err(|error| format!("no port for an upstream: {error}"))?;
    let place = Place::new(entry, Some(address)).map_err(|error| format!("{error:#}"))?;
    let mut plan = Plan::through(target(entry, &place.address));
    plan.method.clone_from(&entry.method);
    plan.trials = list.clients.unwrap_or(plan.trials);
    checked(entry, &place, async {
        through::run(&plan, listener, progress).await.map_err(chain)
    })
    .await
}

/// Starts the program, waits until it is ready, checks it, stops it.
async fn checked<T>(
    entry: &Entry,
    place: &Place,
    check: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    in_the_way::before(&place.address).await?;
    let mut running = Running::start(entry, place)?;
    let ready = ready::wait(&mut running, &place.address, entry).await;
    let result = match ready.and_then(|()| in_the_way::after(&place.address, running.id())) {
        Ok(()) => {
            let result = check.await;
            if result.is_err() {
                running.is_ending().await;
            }
            // What a check found of a server that died in the middle is not true of the server, nor is what it missed.
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

fn chain(error: impl Into<anyhow::Error>) -> String {
    format!("{:#}", error.into())
}

fn target(entry: &Entry, address: &Address) -> Target {
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

/// Where everything listens.
fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}
