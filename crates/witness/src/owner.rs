use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::Process;
use crate::process::name_of;

/// How long an answer is good.
const FRESH: Duration = Duration::from_secs(10);

/// Shortest time between two looks through `/proc`, which may be large: at least this, and so that looking takes
/// at most a twentieth of the time.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_FACTOR: u32 = 20;

/// Who listens on a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The process with the lowest number of those that hold the listening socket: mostly the one that opened it.
    pub process: Process,
    /// How many more hold it, or another one on the same port (`SO_REUSEPORT`): workers.
    pub others: usize,
}

/// Finds who listens on a port, in all network namespaces whose processes we see.
///
/// It looks into `/proc` when it has to and at most once a second, so that a listener that is very new may not be
/// found yet.
#[derive(Debug, Default)]
pub struct Owners {
    /// The only network namespace that is looked at.
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
    /// Finds them in this network namespace only.
    pub fn in_this_namespace() -> Self {
        Self {
            only: fs::read_link("/proc/self/ns/net").ok(),
            ..Self::default()
        }
    }

    /// The process that listens where a RST came from; `None` if nobody does, or if it could be in more than one
    /// network namespace. Do not ask for a RST that was sent because nobody listened: somebody may since.
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
            let pause = PAUSE.max(look.took * PAUSE_FACTOR);
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

/// All listening sockets. What cannot be read is left out: processes end while we look.
fn listeners(only: Option<&Path>) -> HashMap<u16, Vec<Listener>> {
    let pids = pids();
    let mut found: HashMap<u64, (u16, Listener)> = HashMap::new();
    let mut namespaces = HashSet::new();
    for pid in &pids {
        let process = Path::new("/proc").join(pid.to_string());
        let Ok(namespace) = fs::read_link(process.join("ns/net")) else {
            continue;
        };
        let is_asked_for = only.is_none_or(|only| only == namespace);
        if !is_asked_for || !namespaces.insert(namespace.clone()) {
            continue;
        }
        for file in ["net/tcp", "net/tcp6"] {
            let text = fs::read_to_string(process.join(file)).unwrap_or_default();
            for (address, inode) in text.lines().filter_map(listening) {
                let listener = Listener {
                    ip: address.ip().to_canonical(),
                    namespace: namespace.clone(),
                    owners: Vec::new(),
                };
                found.insert(inode, (address.port(), listener));
            }
        }
    }
    for pid in pids {
        for inode in sockets(pid).unwrap_or_default() {
            if let Some((_, listener)) = found.get_mut(&inode) {
                listener.owners.push(Process {
                    name: name_of(pid),
                    pid,
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

fn pids() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// The inodes of a process's sockets, each once.
fn sockets(pid: u32) -> io::Result<HashSet<u64>> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd"))?.flatten();
    Ok(entries
        .filter_map(|entry| {
            let target = fs::read_link(entry.path()).ok()?;
            let inode = target.to_str()?.strip_prefix("socket:[")?;
            inode.strip_suffix(']')?.parse().ok()
        })
        .collect())
}

/// Address and inode of a line of `/proc/net/tcp` or `tcp6` whose state is LISTEN (`0A`).
fn listening(line: &str) -> Option<(SocketAddr, u64)> {
    let mut words = line.split_whitespace().skip(1);
    let local = words.next()?;
    if words.nth(1)? != "0A" {
        return None;
    }
    let inode = words.nth(5)?.parse().ok()?;
    let (ip, port) = local.split_once(':')?;
    Some((
        SocketAddr::new(ip_address(ip)?, u16::from_str_radix(port, 16).ok()?),
        inode,
    ))
}

/// The bytes of an address as 32-bit numbers of this machine, in hexadecimal.
fn ip_address(hex: &str) -> Option<IpAddr> {
    if !hex.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = Vec::new();
    for word in hex.as_bytes().chunks(8) {
        let word = u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    match hex.len() {
        8 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into()),
        32 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn finds_this_process_by_its_port() {
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
    fn many_holders_are_counted_and_two_namespaces_are_none() {
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

    #[cfg(target_endian = "little")]
    #[test]
    fn reads_the_lines_of_both_files() {
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 17 1 0 100";
        assert_eq!(
            listening(line),
            Some(("127.0.0.1:8080".parse().unwrap(), 17))
        );
        assert_eq!(
            listening(&line.replace(" 0A ", " 01 ")),
            None,
            "not listening"
        );
        let line = line.replace("0100007F", "B80D0120000000000000000001000000");
        assert_eq!(
            listening(&line),
            Some(("[2001:db8::1]:8080".parse().unwrap(), 17))
        );
        assert_eq!(
            listening("  sl  local_address rem_address   st tx_queue"),
            None
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,60}", address in "[0-9A-Fé+:-]{0,40}") {
            listening(&text);
            listening(&format!("0: {address} 00000000:0000 0A 0:0 0:0 0 0 0 17"));
        }
    }
}
