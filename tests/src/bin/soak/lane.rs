//! A proxy, its upstream, and their clients: runs them, and checks that every request is accounted for and nothing grew.

use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{env, fs, process};

use rstlab_tests::{LIMIT, Server, proxy_command, upstream};
use rustix::process::Signal;

use crate::client::{ClientCounts, ClientKind, SoakClient};
use crate::watched::{Counted, Held, Watched};

/// How a lane's proxy is set, and what its clients do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LaneKind {
    /// A fresh upstream connection for each request.
    Fresh,
    /// Kept upstream connections, and records of resets.
    Kept,
    /// Clients that leave, beside some that stay.
    Aborting,
}

/// The modes that a lane's upstream goes through.
const MODES: [&str; 9] = [
    "lazy",
    "drain",
    "kill",
    "linger",
    "idle-close",
    "cap",
    "abort",
    "truncate",
    "delay",
];

/// The time in each mode, and without any upstream before the next.
const IN_MODE: Duration = Duration::from_secs(4);
const WITHOUT_UPSTREAM: Duration = Duration::from_millis(300);

/// Clients of each kind.
const OF_EACH: usize = 2;

/// The part of a run before its programs have all memory, threads and descriptors that they need: a minute, or less in a
/// short run.
fn warm_up(time: Duration) -> Duration {
    Duration::from_secs(60).min(time / 2)
}

/// Connections to the upstream that an idle proxy keeps.
const MAX_KEPT: u64 = 32;

/// Growth of the memory that is no leak: the allocator's.
const MAX_GROWTH_KIB: u64 = 8 * 1024;

/// A run's results, and what is wrong in them.
#[derive(Debug)]
pub(crate) struct LaneReport {
    kind: LaneKind,
    clients: ClientCounts,
    proxy: Counted,
    restarts: u64,
    kills: u64,
    warm: Held,
    last: Held,
    most: Held,
    idle: Held,
    pub(crate) wrong: Vec<String>,
}

impl LaneKind {
    pub(crate) const ALL: [Self; 3] = [Self::Fresh, Self::Kept, Self::Aborting];

    fn clients(self) -> &'static [ClientKind] {
        use ClientKind::{Aborting, Chunked, KeptGet, LargeHead, Post, Slow, Upload};
        match self {
            Self::Fresh | Self::Kept => &[Post, KeptGet, Upload, Chunked, Slow, LargeHead],
            Self::Aborting => &[Aborting, Aborting, Aborting, Post, KeptGet],
        }
    }

    fn records(self) -> PathBuf {
        env::temp_dir().join(format!("rstlab-soak-{}-{self:?}", process::id()))
    }

    fn proxy(self, upstream: SocketAddr) -> Watched {
        let records = self.records();
        let settings: &[(&str, &str)] = match self {
            Self::Kept => {
                fs::create_dir_all(&records).expect("a directory for temporary files");
                &[
                    ("PROXY_UPSTREAM_KEEPALIVE", "on"),
                    ("PROXY_RECORD", records.to_str().expect("UTF-8")),
                    ("PROXY_RECORD_MOST", "20"),
                ]
            }
            Self::Fresh => &[("PROXY_GAP", "1ms")],
            Self::Aborting => &[],
        };
        Watched::start(proxy_command(&[], upstream, settings))
    }
}

/// A lane that runs.
pub(crate) struct Lane;

impl Lane {
    /// Runs a lane for so long in a thread of its own.
    pub(crate) fn run(kind: LaneKind, time: Duration) -> JoinHandle<LaneReport> {
        thread::spawn(move || run(kind, time))
    }
}

fn run(kind: LaneKind, time: Duration) -> LaneReport {
    let port = free_port();
    let proxy = kind.proxy(SocketAddr::from(([127, 0, 0, 1], port)));
    let stop = Arc::new(AtomicBool::new(false));
    let kills = Arc::new(AtomicU64::new(0));
    let upstreams = {
        let (stop, kills) = (Arc::clone(&stop), Arc::clone(&kills));
        thread::spawn(move || upstreams(kind, port, &stop, &kills))
    };
    let clients: Vec<_> = (0..OF_EACH)
        .flat_map(|_| kind.clients())
        .zip(1..)
        .map(|(&kind, seed)| {
            let address = proxy.address;
            let client = SoakClient {
                kind,
                address,
                seed,
            };
            let stop = Arc::clone(&stop);
            thread::spawn(move || client.run(&stop))
        })
        .collect();

    let begun = Instant::now();
    let mut samples = Vec::new();
    let mut warm = None;
    while begun.elapsed() < time && clients.iter().all(|client| !client.is_finished()) {
        thread::sleep(Duration::from_secs(1).min(time));
        samples.push(proxy.held());
        if warm.is_none() && begun.elapsed() >= warm_up(time) {
            warm = Some(median(&samples[samples.len() / 2..]));
        }
    }
    stop.store(true, Ordering::Relaxed);
    let mut counts = ClientCounts::default();
    for client in clients {
        counts += client.join().expect("a client panicked");
    }
    let restarts = upstreams.join().expect("an upstream panicked");
    let idle = until_idle(&proxy);
    let last = median(&samples[samples.len() * 3 / 4..]);
    let mut report = LaneReport {
        kind,
        clients: counts,
        proxy: proxy.stop(),
        restarts,
        kills: kills.load(Ordering::Relaxed),
        warm: warm.unwrap_or(last),
        last,
        most: most(&samples),
        idle,
        wrong: Vec::new(),
    };
    if kind == LaneKind::Kept {
        fs::remove_dir_all(kind.records()).expect("the directory is ours");
    }
    report.check();
    report
}

/// A port outside of the range from which the kernel takes the ports of clients: while no upstream listens, a client of
/// the port must not get it as its own.
fn free_port() -> u16 {
    let first = 20_000 + (process::id() % 10_000) as u16;
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    // Each call begins at a port of its own.
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let skip = NEXT.fetch_add(100, Ordering::Relaxed) as u16;
    (first + skip..).find(free).expect("a free port")
}

/// One upstream after the other, ended by SIGTERM and by SIGKILL in turn; returns how many there were.
fn upstreams(kind: LaneKind, port: u16, stop: &AtomicBool, kills: &AtomicU64) -> u64 {
    let listen = format!("127.0.0.1:{port}");
    let start = |mode| -> Server {
        upstream(&[
            ("UPSTREAM_LISTEN", &listen),
            ("UPSTREAM_MODE", mode),
            ("UPSTREAM_CLOSE_DELAY", "50ms"),
            ("UPSTREAM_THINK", "1ms"),
        ])
    };
    // The lanes are not in the same mode at the same time.
    let mut count = kind as u64 * 3;
    let first = count;
    while !stop.load(Ordering::Relaxed) {
        let server = start(MODES[count as usize % MODES.len()]);
        let until = Instant::now() + IN_MODE;
        while Instant::now() < until && !stop.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(100));
        }
        if count.is_multiple_of(2) {
            server.stop();
        } else {
            server.signal(Signal::KILL);
            server.wait();
            kills.fetch_add(1, Ordering::Relaxed);
        }
        thread::sleep(WITHOUT_UPSTREAM);
        count += 1;
    }
    count - first
}

/// Waits until the proxy has ended all connections of clients.
fn until_idle(proxy: &Watched) -> Held {
    let deadline = Instant::now() + LIMIT;
    loop {
        let held = proxy.held();
        // About ten descriptors are the runtime's, the log's and the listener's.
        if held.descriptors <= MAX_KEPT + 16 || Instant::now() > deadline {
            return held;
        }
        thread::sleep(Duration::from_millis(200));
    }
}

fn each(samples: &[Held], of: impl Fn(Vec<u64>) -> u64) -> Held {
    let column = |field: fn(&Held) -> u64| of(samples.iter().map(field).collect());
    Held {
        memory_kib: column(|held| held.memory_kib),
        descriptors: column(|held| held.descriptors),
        threads: column(|held| held.threads),
    }
}

fn median(samples: &[Held]) -> Held {
    each(samples, |mut column| {
        column.sort_unstable();
        column.get(column.len() / 2).copied().unwrap_or(0)
    })
}

fn most(samples: &[Held]) -> Held {
    each(samples, |column| column.into_iter().max().unwrap_or(0))
}

impl LaneReport {
    fn check(&mut self) {
        self.check_balance();
        self.expect("lines of errors", self.proxy.errors.len() as u64, 0);
        let Held {
            memory_kib,
            threads,
            ..
        } = self.warm;
        let too_much = memory_kib + memory_kib / 10 + MAX_GROWTH_KIB;
        if self.last.memory_kib > too_much {
            self.is_wrong(&format!(
                "memory grew from {memory_kib} to {} KiB",
                self.last.memory_kib
            ));
        }
        self.expect("threads at the end", self.last.threads, threads);
        if self.idle.descriptors > MAX_KEPT + 16 {
            self.is_wrong(&format!(
                "{} descriptors without clients",
                self.idle.descriptors
            ));
        }
    }

    /// The clients' view, the proxy's summary and the proxy's log lines tell the same. The one place that knows how the
    /// numbers of the summary add up.
    fn check_balance(&mut self) {
        let clients = self.clients;
        let in_summary = |name: &str| self.proxy.of(name);
        // Of a client that leaves, the proxy may have seen a request or not, and that request may have any fate.
        let fates = [
            ("whole", clients.whole, clients.left),
            ("truncated", clients.truncated, clients.left),
            ("no_response", clients.no_response, clients.left),
            ("refused", clients.refused, clients.left),
            ("left", 0, clients.left),
            ("abandoned", 0, 0),
        ]
        .map(|(name, seen, more)| (name, in_summary(name), seen..=seen + more));
        let requests = in_summary("requests");
        let lost_bytes = in_summary("lost_bytes");

        self.expect("clients without any answer", clients.unanswered, 0);
        let sum = fates.iter().map(|(_, told, _)| told).sum();
        self.expect("requests of the summary", requests, sum);
        let seen = clients.requests - clients.left;
        self.between("requests", requests, seen..=clients.requests);
        for (name, told, bounds) in fates {
            self.between(name, told, bounds);
            // A whole response has a line only if its connection was reset.
            if name != "whole" {
                let lines = self.proxy.lines(&name.replace('_', "-"));
                self.expect(&format!("log lines of {name}"), lines, told);
            }
        }
        if clients.left == 0 {
            self.expect("lost bytes", lost_bytes, clients.lost_bytes);
        }
    }

    fn expect(&mut self, what: &str, found: u64, expected: u64) {
        if found != expected {
            self.is_wrong(&format!("{what}: {found}, not {expected}"));
        }
    }

    fn between(&mut self, what: &str, found: u64, bounds: RangeInclusive<u64>) {
        if !bounds.contains(&found) {
            self.is_wrong(&format!("{what}: {found}, not in {bounds:?}"));
        }
    }

    fn is_wrong(&mut self, what: &str) {
        self.wrong.push(format!("{:?}: {what}", self.kind));
    }
}

impl fmt::Display for LaneReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ClientCounts {
            requests,
            whole,
            truncated,
            no_response,
            refused,
            left,
            ..
        } = self.clients;
        writeln!(
            f,
            "{:?}: {requests} requests: {whole} whole, {truncated} truncated, {no_response} without a response, \
             {refused} refused, {left} left; {} upstreams, {} of them killed",
            self.kind, self.restarts, self.kills
        )?;
        writeln!(f, "  summary: {:?}", self.proxy.summary)?;
        for (name, held) in [
            ("warm", self.warm),
            ("at the end", self.last),
            ("at most", self.most),
            ("idle", self.idle),
        ] {
            writeln!(
                f,
                "  {name}: {:.1} MiB, {} descriptors, {} threads",
                held.memory_kib as f64 / 1024.0,
                held.descriptors,
                held.threads
            )?;
        }
        Ok(())
    }
}
