//! Has a child process answer a connection; the death of the child ends the connection.
//!
//! The kernel closes what a killed process had open (`do_exit`, `exit_files`) as `close()` would: unread bytes
//! make it send a RST (`TCP_ABORT_ON_CLOSE`); with nothing unread it sends the rest of its queue, and a FIN.
//! The close comes some time after the signal (the process's memory goes first): in 28 of 79 such resets, the unread
//! bytes came after the process had looked at its queue for the last time.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};

use rstlab_wire::{StopOrder, Tape};
use rstlab_witness::AnswerKind;
use rustix::process::{
    Pid, Signal, getpid, getppid, kill_process, set_parent_process_death_signal,
};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::config::UpstreamConfig;
use crate::exchange::{ConnectionEnd, exchange};

/// The first line of a child: its signal handler is in place.
const READY: &str = "ready";

/// Limit of the processes that answer at the same time; further connections wait.
pub(crate) const MAX_CHILDREN: usize = 64;

static CHILDREN: Semaphore = Semaphore::const_new(MAX_CHILDREN);

/// Locked from fork to exec: in between, a new process holds a copy of every socket of the server, and would keep the
/// connection of another child open.
static STARTING: Mutex<()> = Mutex::new(());

/// Has a process answer on `stream`, and waits for its end. When `stop` is cancelled, the process stops too.
///
/// # Errors
/// The process can't be started, or ends without a report.
pub(crate) async fn supervise(
    stream: TcpStream,
    program: &Path,
    config: &UpstreamConfig,
    stop: StopOrder,
) -> io::Result<ConnectionEnd> {
    // The semaphore is never closed.
    let _slot = CHILDREN.acquire().await.ok();
    let mut child = start(stream, program, config)?;
    let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    let stdout = child.stdout.take();
    let mut lines = BufReader::new(stdout.ok_or(io::ErrorKind::BrokenPipe)?).lines();
    let ready = lines.next_line().await?.as_deref() == Some(READY);
    let report = tokio::select! {
        line = lines.next_line() => line?,
        () = stop.finish.cancelled() => {
            // The child has not been waited for: the number is still its own.
            if let (true, Some(pid)) = (ready, pid) {
                kill_process(pid, Signal::TERM)?;
            }
            lines.next_line().await?
        }
    };
    let status = child.wait().await?;
    let end = report.and_then(|line| serde_json::from_str(&line).ok());
    end.ok_or_else(|| {
        io::Error::other(format!(
            "{} ended without a report: {status}",
            program.display()
        ))
    })
}

/// Starts `program answer` with the connection as its standard input, and closes the server's copy.
fn start(stream: TcpStream, program: &Path, config: &UpstreamConfig) -> io::Result<Child> {
    let socket = OwnedFd::from(stream.into_std()?);
    let mut command = Command::new(program);
    command
        .args(["--mode", config.mode.as_str()])
        .args(["--response-bytes", &config.response_bytes.to_string()])
        .args(["--status", config.status.as_str()])
        .args(["--max-body", &config.max_body.to_string()])
        .args(["--think", &format!("{}ns", config.think.as_nanos())])
        .args(["answer", "--parent", &std::process::id().to_string()])
        .stdin(Stdio::from(socket))
        .stdout(Stdio::piped())
        // Ctrl-C at a terminal is for the server, which tells the child when to stop.
        .process_group(0)
        .kill_on_drop(true);
    let one_at_a_time = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    let child = command.spawn();
    drop(command);
    drop(one_at_a_time);
    child
}

/// The child's part: answers on standard input, reports to `parent` how that went, and is killed.
///
/// After a refusal or a health check, or without a request, the child closes the connection and exits.
///
/// # Errors
/// Standard input is no connection, or nobody reads standard output.
pub async fn answer(config: UpstreamConfig, parent: i32) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    if getppid() != Pid::from_raw(parent) {
        // The parent died before the call above: no signal will come.
        return Ok(());
    }
    let stop = stop_on_sigterm()?;
    let stream = take_stdin()?;
    say(READY)?;
    let tape = Tape::default();
    let stop = StopOrder::from(stop);
    let mut answered = exchange(stream, Arc::new(config), stop.clone(), tape).await;
    if answered.answer().map(|answer| answer.kind) != Some(AnswerKind::Response) {
        let (end, ..) = answered.close(stop).await;
        return say(&serde_json::to_string(&end)?);
    }
    say(&serde_json::to_string(&answered.look())?)?;
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

/// Logs nothing: the server, which sends the signal, has logged the order to stop.
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
