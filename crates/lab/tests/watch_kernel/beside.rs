//! Programs and connections that the tests of `rstlab watch` run beside it.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rstlab_tests::{ChildProgram, instances_of, json_lines, rstlab};
use rustix::process::Signal;
use serde_json::Value;

/// Lets one test run at a time: a process that is being started holds the sockets of all other tests for a moment, and
/// the last process to close a socket sends the RST.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static RUNNING: Mutex<()> = Mutex::new(());
    // A test that failed has ended too.
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_rstlab");

/// A program that runs beside the test, and is ended with it.
pub(crate) struct Beside {
    pub(crate) program: ChildProgram,
    /// Its log until it was ready.
    pub(crate) said: String,
}

impl Beside {
    /// Starts it and waits until it says `ready` on standard error.
    pub(crate) fn start(command: &mut Command, ready: &str) -> Self {
        let mut program = ChildProgram::spawn(command);
        program.wait_for(ready);
        let said = program.said() + "\n";
        Self { program, said }
    }

    /// `rstlab watch` with these arguments, one blank apart.
    pub(crate) fn watch(args: &str) -> Self {
        let mut command = rstlab(&["watch"]);
        command.args(args.split(' ')).stdout(Stdio::piped());
        Self::start(&mut command, "watching")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.program.signal(signal);
    }

    /// Everything that it wrote to standard output until it ended.
    pub(crate) fn output(&mut self) -> String {
        self.program.output()
    }

    /// The lines of JSON that it wrote until it ended well.
    pub(crate) fn records(&mut self) -> Vec<Value> {
        let records = json_lines(&self.output());
        assert!(self.end().0.success());
        records
    }

    /// Waits for its end; its status and the rest of its log.
    pub(crate) fn end(&mut self) -> (ExitStatus, String) {
        let ended = self.program.end();
        let until_ready = self.said.lines().count();
        (ended.status, ended.log[until_ready..].join("\n") + "\n")
    }

    /// Its trace instances: one while it runs.
    pub(crate) fn instances(&self) -> Vec<PathBuf> {
        instances_of(self.program.pid().as_raw_pid().cast_unsigned())
    }
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

/// A connection whose server closes with a byte unread; returns the client.
pub(crate) fn reset(listener: &TcpListener) -> TcpStream {
    let (server, mut client) = connection(listener);
    client.write_all(b"x").expect("sends");
    server.peek(&mut [0]).expect("arrives");
    client
}
