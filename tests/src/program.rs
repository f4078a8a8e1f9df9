use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::LIMIT;

/// How long a process that nobody waited for may take to end before it is killed.
const DROP_LIMIT: Duration = Duration::from_secs(3);

/// A running process and what it writes to standard error. Ended on drop, the hard way if need be.
#[derive(Debug)]
pub struct Program {
    name: String,
    child: Child,
    lines: Receiver<String>,
    log: Vec<String>,
    /// Lines of `log` that [`wait_for`](Program::wait_for) has looked at.
    looked_at: usize,
}

/// A process that has ended.
#[derive(Debug)]
pub struct Ended {
    /// How it ended.
    pub status: ExitStatus,
    /// All it wrote to standard error.
    pub log: Vec<String>,
}

impl Program {
    /// Starts `command` with its standard error collected.
    ///
    /// # Panics
    /// It can't be started.
    pub fn start(mut command: Command) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        let stderr = child.stderr.take().expect("stderr is piped");
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                // Fails when the test is over and nobody reads the log any more.
                let _ = sender.send(String::from_utf8_lossy(&line).into_owned());
            }
        });
        Self {
            name,
            child,
            lines,
            log: Vec::new(),
            looked_at: 0,
        }
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// The next line that holds `text`: each line is looked at once.
    ///
    /// # Panics
    /// It does not come within [`LIMIT`].
    pub fn wait_for(&mut self, text: &str) -> String {
        let deadline = Instant::now() + LIMIT;
        loop {
            while let Some(line) = self.log.get(self.looked_at) {
                self.looked_at += 1;
                if line.contains(text) {
                    return line.clone();
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => self.log.push(line),
                Err(error) => panic!(
                    "{} did not log {text:?} ({error}); its log:\n{}",
                    self.name,
                    self.log.join("\n")
                ),
            }
        }
    }

    /// The most memory it has held so far, in bytes (`VmHWM` of proc(5)).
    ///
    /// # Panics
    /// It has ended.
    pub fn peak_memory_bytes(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = fs::read_to_string(path).expect("the process runs");
        status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:")?.strip_suffix("kB"))
            .and_then(|kilobytes| kilobytes.trim().parse::<u64>().ok())
            .map(|kilobytes| kilobytes * 1024)
            .expect("proc(5) tells VmHWM")
    }

    /// Sends SIGTERM, without waiting for what comes of it.
    ///
    /// # Panics
    /// It has ended.
    pub fn terminate(&self) {
        kill_process(self.pid(), Signal::TERM).expect("the process runs");
    }

    /// Sends SIGTERM and waits for the end.
    ///
    /// # Panics
    /// It does not end within [`LIMIT`].
    pub fn stop(self) -> Ended {
        self.terminate();
        self.wait()
    }

    /// Waits for the end.
    ///
    /// # Panics
    /// It does not come within [`LIMIT`].
    pub fn wait(mut self) -> Ended {
        assert!(
            self.closes_its_log_within(LIMIT),
            "{} did not end within {LIMIT:?}; its log:\n{}",
            self.name,
            self.log.join("\n")
        );
        Ended {
            status: self.child.wait().expect("it is our child"),
            log: std::mem::take(&mut self.log),
        }
    }

    /// Reads the log to its end: the process has ended then, and so have those that it started.
    fn closes_its_log_within(&mut self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => self.log.push(line),
                Err(RecvTimeoutError::Disconnected) => return true,
                Err(RecvTimeoutError::Timeout) => return false,
            }
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // Asked first: nginx and gunicorn have workers, which they take along.
            self.terminate();
            self.closes_its_log_within(DROP_LIMIT);
        }
        // Both fail if it has ended, and that is well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ended {
    /// The value of a field in the proxy's summary line.
    ///
    /// # Panics
    /// There is no such line, or no such field in it.
    pub fn summary(&self, name: &str) -> u64 {
        let line = self.log.iter().find(|line| line.contains(" summary "));
        line.and_then(|line| field(line, name)?.parse().ok())
            .unwrap_or_else(|| panic!("no {name} in a summary:\n{}", self.log.join("\n")))
    }

    /// How many lines hold `text`.
    pub fn count(&self, text: &str) -> usize {
        self.log.iter().filter(|line| line.contains(text)).count()
    }
}

/// The value of ` name=value` in a line of the log's text format.
pub fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.split(' ')
        .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
        .map(|value| value.trim_matches('"'))
}
