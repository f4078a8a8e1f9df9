//! Compares `rstlab watch` with tcpdump: watch reports every RST, and no other.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rstlab_tests::{InTime as _, LIMIT};
use rustix::process::{Pid, Signal};
use serde_json::Value;
use tempfile::TempDir;

use crate::beside::{Beside, listener, reset};

type FromTo = (SocketAddr, SocketAddr);

/// `rstlab watch` and tcpdump beside the same server.
pub(crate) struct Compare {
    server: SocketAddr,
    /// Makes the last reset: when tcpdump has seen that one, it has seen all.
    marker: TcpListener,
    directory: TempDir,
    tcpdump: Beside,
    watch: Beside,
    lines: JoinHandle<Vec<String>>,
}

/// The output of `rstlab watch` about the server's connections; tcpdump saw exactly these RSTs.
pub(crate) struct ToldResets {
    pub(crate) records: Vec<Value>,
    /// What it said at its end.
    pub(crate) summary: String,
    /// Processor time of `rstlab watch`, in user and kernel mode.
    pub(crate) processor_time: Duration,
}

impl Compare {
    pub(crate) fn start(witness: &str, server: SocketAddr) -> Self {
        let (marker, address) = listener();
        let directory = tempfile::tempdir().expect("a directory");
        let ports = [server, address].map(|it| it.port().to_string());
        let filter = format!(
            "(tcp port {} or tcp port {}) and tcp[tcpflags] & tcp-rst != 0",
            ports[0], ports[1]
        );
        let mut tcpdump = Command::new("tcpdump");
        tcpdump
            .args(["-i", "lo", "-n", "-U", "-B", "65536", "-s", "96"])
            .args(["-Z", "root", "-w"])
            .arg(directory.path().join("rst.pcap"))
            .arg(filter);
        let tcpdump = Beside::start(&mut tcpdump, "listening on");
        let [server_port, marker_port] = &ports;
        let mut watch = Beside::watch(&format!(
            "--json --witness {witness} --port {server_port} --port {marker_port}"
        ));
        let out = watch.program.take_stdout().expect("a pipe");
        let lines = thread::spawn(move || {
            let lines = BufReader::new(out).lines();
            lines.collect::<Result<Vec<_>, _>>().expect("text")
        });
        Self {
            server,
            marker,
            directory,
            tcpdump,
            watch,
            lines,
        }
    }

    /// Ends both programs, and checks that they report the same RSTs with the same addresses.
    pub(crate) fn finish(self) -> ToldResets {
        let Self {
            server,
            marker,
            directory,
            mut tcpdump,
            mut watch,
            lines,
        } = self;
        let last = reset(&marker).local_addr().expect("an address");
        let marker = marker.local_addr().expect("an address");
        let begun = Instant::now();
        let mut packets = loop {
            let packets = captured(&directory.path().join("rst.pcap"));
            if packets.contains_key(&(marker, last)) {
                break packets;
            }
            assert!(begun.elapsed() < LIMIT, "tcpdump does not see the last one");
            thread::sleep(Duration::from_millis(50));
        };
        packets.retain(|(from, to), _| ![from, to].contains(&&marker));
        tcpdump.signal(Signal::INT);
        let (_, said) = tcpdump.end();
        assert!(said.contains("\n0 packets dropped by kernel"), "{said}");
        let processor_time = processor_time(watch.program.pid());
        watch.signal(Signal::TERM);
        let (status, summary) = watch.end();
        assert!(status.success());
        let nothing_lost = ["lost events: 0, unreadable lines: 0", "lost resets: 0"];
        assert!(
            nothing_lost.iter().any(|it| summary.contains(it)),
            "{summary}"
        );
        let lines = lines.join().expect("ends");
        let records = lines
            .iter()
            .map(|line| serde_json::from_str(line).expect("JSON"));
        let mut records: Vec<Value> = records.collect();
        records.retain(|record| record["from"] != marker.to_string());
        same(&records, &packets, server);
        ToldResets {
            records,
            summary,
            processor_time,
        }
    }
}

impl ToldResets {
    pub(crate) fn firsts(&self) -> impl Iterator<Item = &Value> {
        self.records.iter().filter(|it| it["place"] == "first")
    }
}

fn same(records: &[Value], packets: &HashMap<FromTo, u32>, server: SocketAddr) {
    let (mut named, mut unnamed) = (HashMap::<FromTo, u32>::new(), 0);
    for record in records {
        let address = |key: &str| -> Option<SocketAddr> { record[key].as_str()?.parse().ok() };
        let from = address("from").expect("an address");
        match address("to") {
            Some(to) => *named.entry((from, to)).or_default() += 1,
            None => {
                // The kernel reports a listener, which does not know the connection.
                let told = [&record["state"], &record["place"]];
                assert_eq!(
                    (from, told),
                    (server, [&"TCP_LISTEN".into(), &"echo".into()])
                );
                unnamed += 1;
            }
        }
    }
    let in_all: u32 = packets.values().sum();
    assert_eq!(
        records.len(),
        in_all as usize,
        "none missing, none invented"
    );
    for (pair, count) in &named {
        let sent = packets.get(pair).copied().unwrap_or(0);
        assert!(sent >= *count, "{pair:?}: {count} told, {sent} sent");
    }
    // The RSTs without a destination went from the listener to one of the connections.
    let missing = packets
        .iter()
        .map(|(pair, sent)| (pair, sent - named.get(pair).unwrap_or(&0)));
    let missing: Vec<_> = missing.filter(|(_, missing)| *missing > 0).collect();
    assert!(
        missing.iter().all(|((from, _), _)| *from == server),
        "{missing:?}"
    );
    assert_eq!(missing.iter().map(|(_, count)| count).sum::<u32>(), unnamed);
}

/// The RSTs of a capture, by source and destination.
fn captured(file: &Path) -> HashMap<FromTo, u32> {
    let output = Command::new("tcpdump")
        .args(["-nn", "-r"])
        .arg(file)
        .output_in_time();
    let mut packets = HashMap::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let pair = words
            .get(2)
            .zip(words.get(4))
            .map(|(from, to)| (from, to.trim_end_matches(':')));
        let pair = pair.and_then(|(from, to)| Some((dotted(from)?, dotted(to)?)));
        *packets
            .entry(pair.unwrap_or_else(|| panic!("{line}")))
            .or_default() += 1;
    }
    packets
}

/// `127.0.0.1.8000`
fn dotted(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.rsplit_once('.')?;
    Some(SocketAddr::new(ip.parse().ok()?, port.parse().ok()?))
}

/// The processor time of a process since its start.
fn processor_time(pid: Pid) -> Duration {
    let process = procfs::process::Process::new(pid.as_raw_pid());
    let stat = process.and_then(|it| it.stat()).expect("it runs");
    Duration::from_millis((stat.utime + stat.stime) * 1000 / procfs::ticks_per_second())
}
