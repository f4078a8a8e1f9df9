//! Finds who listens on a port.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use procfs::net::TcpState;
use procfs::process::{self, FDTarget};
use schemars::JsonSchema;
use serde::Serialize;

use crate::evidence::Process;

/// The listeners are looked up again after this time.
const FRESH: Duration = Duration::from_secs(10);

/// Shortest time between two looks through `/proc`. If `/proc` is large, the time is longer: looking takes at most a
/// twentieth of the time.
const MIN_PAUSE: Duration = Duration::from_secs(1);
const PAUSE_FACTOR: u32 = 20;

/// Who listens on a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Owner {
    /// The process with the lowest number of those that hold the listening socket: mostly the one that opened it.
    #[serde(flatten)]
    pub process: Process,
    /// How many more processes, workers for example, hold the socket or another one on the same port
    /// (`SO_REUSEPORT`).
    pub others: usize,
}

/// Finds who listens on a port, in all network namespaces whose processes we see.
///
/// It looks into `/proc` at most once a second, so a listener that is very new may not be found yet.
#[derive(Debug, Default)]
pub struct Owners {
    /// If set, only listeners in this network namespace are looked for.
    only: Option<PathBuf>,
    listeners: HashMap<u16, Vec<Listener>>,
    looked: Option<Look>,
}

#[derive(Debug, Clone, Copy)]
struct Look {
    at: Instant,
    took: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Listener {
    ip: IpAddr,
    namespace: PathBuf,
    owners: Vec<Process>,
}

impl Owners {
    /// Finds listeners in this network namespace only.
    pub fn in_this_namespace() -> Self {
        Self {
            only: fs::read_link("/proc/self/ns/net").ok(),
            ..Self::default()
        }
    }

    /// The process that listens where a RST came from; `None` if nobody does, or if the RST could be of more
    /// than one network namespace. Do not ask about a RST that was sent because nobody listened: a process may have
    /// begun to listen since.
    pub fn of(&mut self, source: SocketAddr) -> Option<Owner> {
        self.refresh(source);
        only_owner(&self.at(source))
    }

    fn at(&self, source: SocketAddr) -> Vec<&Listener> {
        let here = self.listeners.get(&source.port()).into_iter().flatten();
        here.filter(|it| it.ip == source.ip() || it.ip.is_unspecified())
            .collect()
    }

    fn refresh(&mut self, source: SocketAddr) {
        let alive = |process: &Process| Path::new("/proc").join(process.pid.to_string()).exists();
        if let Some(look) = self.looked {
            let known = self.at(source);
            let sound = !known.is_empty() && known.iter().flat_map(|it| &it.owners).all(alive);
            let age = look.at.elapsed();
            let pause = MIN_PAUSE.max(look.took * PAUSE_FACTOR);
            if age < if sound { FRESH.max(pause) } else { pause } {
                return;
            }
        }
        let begun = Instant::now();
        self.listeners = listeners(self.only.as_deref());
        self.looked = Some(Look {
            at: Instant::now(),
            took: begun.elapsed(),
        });
    }
}

fn only_owner(listeners: &[&Listener]) -> Option<Owner> {
    let namespaces: HashSet<_> = listeners.iter().map(|it| &it.namespace).collect();
    if namespaces.len() > 1 {
        return None;
    }
    let owners: HashMap<u32, &Process> = listeners
        .iter()
        .flat_map(|it| &it.owners)
        .map(|process| (process.pid, process))
        .collect();
    let pids: BTreeSet<u32> = owners.keys().copied().collect();
    let process = owners.get(pids.first()?)?;
    Some(Owner {
        process: (*process).clone(),
        others: pids.len() - 1,
    })
}

/// All listening sockets. Processes that cannot be read are left out, because processes end while we look.
fn listeners(only: Option<&Path>) -> HashMap<u16, Vec<Listener>> {
    let mut found: HashMap<u64, (u16, Listener)> = HashMap::new();
    let mut namespaces = HashSet::new();
    for process in processes() {
        let link = format!("/proc/{}/ns/net", process.pid());
        let Ok(namespace) = fs::read_link(link) else {
            continue;
        };
        let is_asked_for = only.is_none_or(|only| only == namespace);
        if !is_asked_for || !namespaces.insert(namespace.clone()) {
            continue;
        }
        let entries = [process.tcp(), process.tcp6()].into_iter().flatten();
        for entry in entries.flatten() {
            if entry.state == TcpState::Listen {
                let listener = Listener {
                    ip: entry.local_address.ip().to_canonical(),
                    namespace: namespace.clone(),
                    owners: Vec::new(),
                };
                found.insert(entry.inode, (entry.local_address.port(), listener));
            }
        }
    }
    for process in processes() {
        for inode in sockets(&process) {
            if let Some((_, listener)) = found.get_mut(&inode) {
                listener.owners.push(Process {
                    name: process.stat().ok().map(|stat| stat.comm),
                    pid: process.pid().cast_unsigned(),
                });
            }
        }
    }
    let mut by_port: HashMap<u16, Vec<Listener>> = HashMap::new();
    for (port, listener) in found.into_values() {
        by_port.entry(port).or_default().push(listener);
    }
    by_port
}

/// All processes, one at a time, because each holds a descriptor of ours open.
fn processes() -> impl Iterator<Item = process::Process> {
    process::all_processes().into_iter().flatten().flatten()
}

/// The inodes of a process's sockets, each once.
fn sockets(process: &process::Process) -> HashSet<u64> {
    let descriptors = process.fd().into_iter().flatten().flatten();
    descriptors
        .filter_map(|descriptor| match descriptor.target {
            FDTarget::Socket(inode) => Some(inode),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    #[test]
    fn a_listener_is_found_by_its_port() {
        for address in ["127.0.0.1:0", "[::1]:0", "0.0.0.0:0", "[::]:0"] {
            let Ok(listener) = TcpListener::bind(address) else {
                assert!(address.starts_with('['), "no IPv6 on this machine");
                continue;
            };
            let bound = listener.local_addr().unwrap();
            let mut source = bound;
            if bound.ip().is_unspecified() {
                source.set_ip(Ipv4Addr::LOCALHOST.into());
            }
            for mut owners in [Owners::default(), Owners::in_this_namespace()] {
                let owner = owners.of(source).expect("an owner");
                assert_eq!((owner.process.pid, owner.others), (std::process::id(), 0));
                assert!(owner.process.name.is_some());
            }
        }
    }

    #[test]
    fn a_port_without_a_listener_has_no_owner() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut elsewhere = listener.local_addr().unwrap();
        elsewhere.set_ip(Ipv4Addr::new(127, 0, 0, 2).into());
        assert_eq!(Owners::default().of(elsewhere), None);
    }

    #[test]
    fn holders_of_a_socket_are_counted_and_two_namespaces_give_no_owner() {
        let process = |pid| Process { name: None, pid };
        let listener = |namespace: &str, owners: &[u32]| Listener {
            ip: Ipv4Addr::UNSPECIFIED.into(),
            namespace: namespace.into(),
            owners: owners.iter().copied().map(process).collect(),
        };
        let (a, b) = (listener("n", &[9, 7]), listener("n", &[9, 8]));
        let owner = only_owner(&[&a, &b]).unwrap();
        assert_eq!((owner.process.pid, owner.others), (7, 2));
        assert_eq!(only_owner(&[&a, &listener("m", &[1])]), None);
        assert_eq!(only_owner(&[&listener("n", &[])]), None);
    }
}
