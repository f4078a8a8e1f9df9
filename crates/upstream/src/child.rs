//! A connection that a process of its own answers, and whose end is that process's death.
//!
//! The kernel closes what a killed process had open (`do_exit`, `exit_files`) as `close()` would: unread bytes
//! make it send a RST (`TCP_ABORT_ON_CLOSE`), and with nothing unread it sends what is left, and a FIN.
//! It does so some time after the signal (its memory goes first): of 79 such resets, 28 were of bytes that came
//! after the process had looked at its queue for the last time.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};

use rstlab_wire::{Tape, close};
use rustix::process::{
    Pid, Signal, getpid, getppid, kill_process, set_parent_process_death_signal,
};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::serve::exchange;
use crate::{Config, Kind, Summary, report};

/// The first line of a child: from now on it knows what a signal means.
const READY: &str = "ready";

/// Processes that answer at once; more connections wait.
const MOST_CHILDREN: usize = 64;

static CHILDREN: Semaphore = Semaphore::const_new(MOST_CHILDREN);

/// Between fork and exec a new process holds a copy of every socket of ours. One start at a time: then no
/// process keeps another's connection open, for a start ends with the exec.
static STARTING: Mutex<()> = Mutex::new(());

/// Has a process answer on `stream`, and waits for its end. When `stop` is cancelled, the process stops too.
///
/// # Errors
/// It can't be started, or ends without having said how the connection went.
pub(crate) async fn supervise(
    stream: TcpStream,
    program: &Path,
    config: &Config,
    stop: CancellationToken,
) -> io::Result<Summary> {
    // The semaphore is never closed.
    let _slot = CHILDREN.acquire().await.ok();
    let mut child = start(stream, program, config)?;
    let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    let stdout = child.stdout.take();
    let mut lines = BufReader::new(stdout.ok_or(io::ErrorKind::BrokenPipe)?).lines();
    let ready = lines.next_line().await?.as_deref() == Some(READY);
    let report = tokio::select! {
        line = lines.next_line() => line?,
        () = stop.cancelled() => {
            // Not waited for yet: the number is still its own.
            if let (true, Some(pid)) = (ready, pid) {
                kill_process(pid, Signal::TERM)?;
            }
            lines.next_line().await?
        }
    };
    let status = child.wait().await?;
    let summary = report.and_then(|line| report::from_line(&line));
    summary.ok_or_else(|| {
        io::Error::other(format!(
            "{} ended without a report: {status}",
            program.display()
        ))
    })
}

/// Starts `program answer` with the connection as its standard input, and closes our copy.
fn start(stream: TcpStream, program: &Path, config: &Config) -> io::Result<Child> {
    let socket = OwnedFd::from(stream.into_std()?);
    let mut command = Command::new(program);
    command
        .args(["--mode", config.mode.as_str()])
        .args(["--response-bytes", &config.response_bytes.to_string()])
        .args(["--status", config.status.as_str()])
        .args(["--think", &format!("{}ns", config.think.as_nanos())])
        .args(["answer", "--parent", &std::process::id().to_string()])
        .stdin(Stdio::from(socket))
        .stdout(Stdio::piped())
        // Ctrl-C at a terminal is for us: we tell it when to stop.
        .process_group(0)
        .kill_on_drop(true);
    let one_at_a_time = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    let child = command.spawn();
    drop(command);
    drop(one_at_a_time);
    child
}

/// The child's part: answers on standard input, tells `parent` how that went, and is killed.
///
/// A refusal or a health check it ends as any server does, and so it ends if the client never asks.
///
/// # Errors
/// Standard input is no connection, or nobody reads standard output.
pub async fn answer(config: Config, parent: i32) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    if getppid() != Pid::from_raw(parent) {
        // It died before that call: its signal will not come.
        return Ok(());
    }
    let stop = stop_on_sigterm()?;
    let stream = take_stdin()?;
    say(READY)?;
    let answered = exchange(stream, Arc::new(config), stop.clone(), Tape::default()).await;
    if answered.so_far.answer.map(|answer| answer.kind) != Some(Kind::Response) {
        return say(&report::to_line(&answered.close(stop).await));
    }
    let closed = close::look(&answered.stream, &answered.tape);
    say(&report::to_line(&answered.so_far.ended(closed)))?;
    // The stream is open: the kernel closes it.
    kill_process(getpid(), Signal::KILL)?;
    std::future::pending().await
}

/// Takes the connection out of standard input, so that no other descriptor holds it.
fn take_stdin() -> io::Result<TcpStream> {
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    let stream = std::net::TcpStream::from(socket);
    stream.set_nonblocking(true)?;
    TcpStream::from_std(stream)
}

/// Without a word in the log: whoever sends it has told already.
fn stop_on_sigterm() -> io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    tokio::spawn(async move {
        terminate.recv().await;
        stopped.cancel();
    });
    Ok(stop)
}

fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}
