use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// A process that is being started holds, for a moment, the sockets of all tests beside it, and the last to close
/// sends the RST: each test runs alone.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static RUNNING: Mutex<()> = Mutex::new(());
    // One that failed has ended too.
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Longest wait for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_rstlab");

/// A program that runs beside the test, and is killed with it.
pub(crate) struct Beside {
    pub(crate) child: Child,
    /// What it said until it was ready.
    pub(crate) said: String,
    errors: BufReader<ChildStderr>,
}

impl Beside {
    /// Starts it and waits until it says `ready` on standard error.
    pub(crate) fn start(command: &mut Command, ready: &str) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let errors = BufReader::new(child.stderr.take().expect("a pipe"));
        let said = String::new();
        let mut beside = Self {
            child,
            said,
            errors,
        };
        while beside.errors.read_line(&mut beside.said).expect("text") > 0 {
            if beside.said.contains(ready) {
                return beside;
            }
        }
        panic!("{command:?} did not start: {}", beside.said);
    }

    pub(crate) fn watch(args: &[&str]) -> Self {
        let mut command = Command::new(PROGRAM);
        command.arg("watch").args(args).stdout(Stdio::piped());
        Self::start(&mut command, "watching")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("it runs");
    }

    /// Everything that it wrote to standard output until it ended.
    pub(crate) fn output(&mut self) -> String {
        let mut out = String::new();
        let stdout = self.child.stdout.as_mut().expect("a pipe");
        stdout.read_to_string(&mut out).expect("text");
        out
    }

    /// Waits for its end; its status and the rest of its standard error.
    pub(crate) fn end(&mut self) -> (ExitStatus, String) {
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                break status;
            }
            assert!(begun.elapsed() < PATIENCE, "it does not end");
            thread::sleep(Duration::from_millis(5));
        };
        let mut rest = String::new();
        self.errors.read_to_string(&mut rest).expect("text");
        (status, rest)
    }

    /// Its trace instances: one while it runs.
    pub(crate) fn instances(&self) -> Vec<PathBuf> {
        instances(self.child.id())
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        // An error says that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The trace instances of processes with that number.
pub(crate) fn instances(pid: u32) -> Vec<PathBuf> {
    let entries = fs::read_dir("/sys/kernel/tracing/instances").expect("root, and tracefs");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let prefix = format!("rstlab-{pid}-");
    let is_its = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with(&prefix))
    };
    paths.filter(is_its).collect()
}

pub(crate) fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}

pub(crate) fn connection(listener: &TcpListener) -> (TcpStream, TcpStream) {
    let client = TcpStream::connect(listener.local_addr().expect("an address")).expect("connects");
    (listener.accept().expect("accepts").0, client)
}

/// Closes with a byte unread.
pub(crate) fn reset(listener: &TcpListener) -> TcpStream {
    let (server, mut client) = connection(listener);
    client.write_all(b"x").expect("sends");
    server.peek(&mut [0]).expect("arrives");
    client
}
