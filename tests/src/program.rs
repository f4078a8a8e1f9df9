//! Processes beside a test: each wait for their log, their output or their end has a time limit.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::LIMIT;

/// The longest run of a program that ends by itself: a whole `rstlab matrix` on a busy machine.
const RUN_LIMIT: Duration = Duration::from_secs(300);

/// How long a process that nobody waited for may take to end before it is killed.
const DROP_LIMIT: Duration = Duration::from_secs(3);

/// A running process and what it writes to standard error. Dropping it ends the process: with SIGTERM, and with SIGKILL
/// if that is not enough.
#[derive(Debug)]
pub struct ChildProgram {
    name: String,
    child: Child,
    lines: Receiver<String>,
    log: Vec<String>,
    /// Lines of `log` that [`wait_for`](ChildProgram::wait_for) has looked at.
    looked_at: usize,
}

/// A process that has ended.
#[derive(Debug)]
pub struct ProgramEnd {
    /// How it ended.
    pub status: ExitStatus,
    /// All it wrote to standard error.
    pub log: Vec<String>,
}

impl ChildProgram {
    /// Starts `command`. Its standard error is collected, its standard output is discarded.
    ///
    /// # Panics
    /// It can't be started.
    pub fn start(mut command: Command) -> Self {
        Self::spawn(command.stdout(Stdio::null()))
    }

    /// Starts `command`. Its standard error is collected, its standard output goes where the caller has set.
    ///
    /// # Panics
    /// It can't be started.
    pub fn spawn(command: &mut Command) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        let mut child = command
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        let stderr = child.stderr.take().expect("stderr is piped");
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                // Sending fails when the test is over and nobody reads the log any more.
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

    /// The next line; each line is looked at once.
    ///
    /// # Panics
    /// It does not come within [`LIMIT`].
    pub fn line(&mut self) -> String {
        self.wait_for("")
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

    /// The lines that [`wait_for`](Self::wait_for) has looked at.
    pub fn said(&self) -> String {
        self.log[..self.looked_at].join("\n")
    }

    /// Its standard output, for a test that reads it line by line or closes it.
    pub fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Everything that it writes to standard output until it ends.
    ///
    /// # Panics
    /// Its standard output is no pipe, or does not end within [`LIMIT`].
    pub fn output(&mut self) -> String {
        let mut stdout = self.take_stdout().expect("a pipe");
        let (sender, whole) = channel();
        thread::spawn(move || {
            let mut text = String::new();
            let read = stdout.read_to_string(&mut text);
            // Sending fails when nobody waits any more.
            let _ = sender.send(read.map(|_| text));
        });
        let whole = whole.recv_timeout(LIMIT);
        whole.expect("its output ends").expect("text")
    }

    /// The most memory it has held so far, in bytes (`VmHWM` of proc(5)).
    ///
    /// # Panics
    /// It has ended.
    pub fn peak_memory_bytes(&self) -> u64 {
        self.memory_bytes("VmHWM:")
    }

    /// The memory it holds now, in bytes (`VmRSS` of proc(5)).
    ///
    /// # Panics
    /// It has ended.
    pub fn resident_memory_bytes(&self) -> u64 {
        self.memory_bytes("VmRSS:")
    }

    fn memory_bytes(&self, name: &str) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = fs::read_to_string(path).expect("the process runs");
        status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_suffix("kB"))
            .and_then(|kilobytes| kilobytes.trim().parse::<u64>().ok())
            .map(|kilobytes| kilobytes * 1024)
            .expect("proc(5) tells it")
    }

    /// Sends a signal, and does not wait.
    ///
    /// # Panics
    /// It has ended.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("the process runs");
    }

    /// Sends SIGTERM, and does not wait.
    ///
    /// # Panics
    /// It has ended.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Sends SIGTERM and waits for the end.
    ///
    /// # Panics
    /// It does not end within [`LIMIT`].
    pub fn stop(self) -> ProgramEnd {
        self.terminate();
        self.wait()
    }

    /// Waits for the end.
    ///
    /// # Panics
    /// It does not come within [`LIMIT`].
    pub fn wait(mut self) -> ProgramEnd {
        self.end()
    }

    /// Waits for the end; the lines that were looked at can no longer be asked for.
    ///
    /// # Panics
    /// It does not come within [`LIMIT`].
    pub fn end(&mut self) -> ProgramEnd {
        assert!(
            self.closes_its_log_within(LIMIT),
            "{} did not end within {LIMIT:?}; its log:\n{}",
            self.name,
            self.log.join("\n")
        );
        ProgramEnd {
            status: self.child.wait().expect("it is our child"),
            log: std::mem::take(&mut self.log),
        }
    }

    /// Reads the log to its end, which comes when the process and all processes that it started have closed it.
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

/// Commands and processes that must end in time.
pub trait InTime {
    /// Waits for the end and returns the output; a process that runs for too long is killed.
    ///
    /// # Panics
    /// It cannot be started, or does not end within five minutes.
    fn output_in_time(self) -> Output;
}

impl InTime for &mut Command {
    fn output_in_time(self) -> Output {
        let piped = self.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = piped.stdin(Stdio::null()).spawn();
        child.expect("it starts").output_in_time()
    }
}

impl InTime for Child {
    fn output_in_time(self) -> Output {
        let pid = Pid::from_child(&self);
        let (sender, output) = channel();
        // Sending fails when nobody waits any more.
        thread::spawn(move || sender.send(self.wait_with_output()));
        let Ok(output) = output.recv_timeout(RUN_LIMIT) else {
            // The kill fails if the process has just ended.
            let _ = kill_process(pid, Signal::KILL);
            panic!("it did not end within {RUN_LIMIT:?}");
        };
        output.expect("it is our child")
    }
}

impl Drop for ChildProgram {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // SIGTERM comes first, because nginx and gunicorn end their workers on it.
            self.terminate();
            self.closes_its_log_within(DROP_LIMIT);
        }
        // Both calls fail if the process has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl ProgramEnd {
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

/// The processes whose command line or environment holds `mark`, as their directories in /proc.
pub fn processes_of(mark: &str) -> Vec<PathBuf> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = processes.map(|one| one.path());
    let holds = |file: PathBuf| {
        fs::read(file).is_ok_and(|text| String::from_utf8_lossy(&text).contains(mark))
    };
    processes
        .filter(|one| holds(one.join("cmdline")) || holds(one.join("environ")))
        .collect()
}
