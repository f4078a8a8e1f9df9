//! A program whose log lines and resources are counted while it runs.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};

use rstlab_tests::{LIMIT, field};
use rustix::process::{Pid, Signal, kill_process};

/// A running program.
pub(crate) struct Watched {
    child: OwnedChild,
    /// Where the program listens.
    pub(crate) address: SocketAddr,
    log: JoinHandle<Counted>,
    ended: Receiver<()>,
}

/// A child that does not outlive this one's panic.
struct OwnedChild(Child);

impl Drop for OwnedChild {
    fn drop(&mut self) {
        // Both fail if the program has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The log of a program that has ended.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    /// The numbers of the summary line.
    pub(crate) summary: BTreeMap<String, u64>,
    /// Lines about an exchange, by the harm that they tell of.
    pub(crate) harms: BTreeMap<String, u64>,
    /// Lines of the level ERROR, and of panics.
    pub(crate) errors: Vec<String>,
}

/// What a program holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Held {
    pub(crate) memory_kib: u64,
    pub(crate) descriptors: u64,
    pub(crate) threads: u64,
}

impl Watched {
    /// Starts a server, and waits until the log says where it listens.
    pub(crate) fn start(mut command: Command) -> Self {
        let piped = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = piped.spawn().expect("it starts");
        let stderr = child.stderr.take().expect("it is piped");
        let (listening, address) = channel();
        let (end, ended) = channel();
        let log = thread::spawn(move || {
            let mut counted = Counted::default();
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if line.contains(" listening ") {
                    // Fails if nobody waits any more.
                    let _ = listening.send(field(&line, "address").and_then(|it| it.parse().ok()));
                }
                counted.count(line);
            }
            // Fails if nobody waits any more.
            let _ = end.send(());
            counted
        });
        let address = address
            .recv_timeout(LIMIT)
            .expect("it says that it listens");
        Self {
            child: OwnedChild(child),
            address: address.expect("an address"),
            log,
            ended,
        }
    }

    /// What the program holds now.
    pub(crate) fn held(&self) -> Held {
        let proc = format!("/proc/{}", self.child.0.id());
        let status = fs::read_to_string(format!("{proc}/status")).expect("it runs");
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let word = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
            word.expect("proc(5) tells it")
        };
        Held {
            memory_kib: number("VmRSS:"),
            descriptors: fs::read_dir(format!("{proc}/fd")).expect("it runs").count() as u64,
            threads: number("Threads:"),
        }
    }

    /// Sends SIGTERM, and waits for the end.
    ///
    /// # Panics
    /// The program does not end in order.
    pub(crate) fn stop(mut self) -> Counted {
        let pid = Pid::from_child(&self.child.0);
        kill_process(pid, Signal::TERM).expect("it runs");
        self.ended.recv_timeout(LIMIT).expect("it ends");
        let status = self.child.0.wait().expect("it is our child");
        let counted = self.log.join().expect("no panic");
        assert!(status.success(), "{status}: {:?}", counted.errors);
        counted
    }
}

impl Counted {
    fn count(&mut self, line: String) {
        if line.contains(" summary ") {
            let pairs = line.split(' ').filter_map(|word| word.split_once('='));
            let numbers =
                pairs.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)));
            self.summary = numbers.collect();
        } else if let Some(harm) = field(&line, "harm") {
            *self.harms.entry(harm.to_owned()).or_default() += 1;
        } else if line.contains(" ERROR ") || line.contains("panicked") {
            self.errors.push(line);
        }
    }

    /// A number of the summary.
    pub(crate) fn of(&self, name: &str) -> u64 {
        let number = self.summary.get(name);
        *number.unwrap_or_else(|| panic!("no {name} in the summary {:?}", self.summary))
    }

    /// Lines about exchanges with this harm.
    pub(crate) fn lines(&self, harm: &str) -> u64 {
        self.harms.get(harm).copied().unwrap_or(0)
    }
}
