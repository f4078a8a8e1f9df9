use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::file::Entry;
use super::orphans;
use super::place::Place;
use super::proc::named;
use crate::printable::printable;

/// Of what a program writes, the end is kept.
const KEPT_BYTES: usize = 8 * 1024;

/// Of that, so many lines stand in an error, each so long.
const SHOWN_LINES: usize = 3;
const SHOWN_CHARS: usize = 200;

/// From a program's end to the end of what it wrote.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// From the end of a program's connections to its own.
const ENDING: Duration = Duration::from_millis(500);

/// The process group of a program that was started by [`command`]. It is killed when this is dropped.
#[derive(Debug)]
pub(super) struct Group(Pid);

impl Group {
    /// `None` if the program has ended and was asked how.
    pub(super) fn of(child: &Child) -> Option<Self> {
        Some(Self(Pid::from_raw(child.id()?.try_into().ok()?)?))
    }

    fn signal(&self, signal: Signal) {
        // It may have ended. The leader's number names the group for as long as the group has anybody in it.
        let _ = kill_process_group(self.0, signal);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// A program that runs. Its group is killed when this is dropped.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    group: Group,
    output: Arc<Mutex<VecDeque<u8>>>,
    readers: JoinSet<()>,
}

impl Running {
    /// Starts the entry's command.
    ///
    /// # Errors
    /// It can't be started; the text says why.
    pub(super) fn start(entry: &Entry, place: &Place) -> Result<Self, String> {
        let words: Vec<String> = entry
            .command
            .iter()
            .map(|word| place.filled(word))
            .collect();
        let variables = entry.environment.iter();
        let mut command = command(&words, &entry.directory);
        command.envs(variables.map(|(name, value)| (name, place.filled(value))));
        let name = words.first().map_or("", String::as_str);
        let mut child = command
            .spawn()
            .map_err(|error| format!("cannot start {name}: {error}"))?;
        let group = Group::of(&child).ok_or_else(|| format!("{name} has no process id"))?;
        let output = Arc::default();
        let mut readers = JoinSet::new();
        if let Some(stdout) = child.stdout.take() {
            readers.spawn(keep_end(stdout, Arc::clone(&output)));
        }
        if let Some(stderr) = child.stderr.take() {
            readers.spawn(keep_end(stderr, Arc::clone(&output)));
        }
        Ok(Self {
            child,
            group,
            output,
            readers,
        })
    }

    /// The program's process, as long as it runs.
    pub(super) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// How the program ended, if it has; `when` says at what time that is.
    pub(super) fn ended(&mut self, when: &str) -> Option<String> {
        let status = self.child.try_wait().ok()??;
        let ended = format!("it ended ({status}) {when}");
        let left = orphans::left();
        // One that fails may leave a child behind; one that says that all is well goes on as a daemon.
        Some(match left.first() {
            Some(daemon) if status.success() => {
                format!(
                    "{ended} and left {} in the background: run it in the foreground",
                    named(daemon)
                )
            }
            _ => ended,
        })
    }

    /// Waits a moment for the end of a program that no longer takes connections: its sockets are closed before.
    pub(super) async fn is_ending(&mut self) {
        // One that goes on is told as one that does.
        let _ = timeout(ENDING, self.child.wait()).await;
    }

    /// Waits until everything that an ended program wrote was read.
    pub(super) async fn last_words(&mut self) {
        let all = async { while self.readers.join_next().await.is_some() {} };
        // A child of its own may still hold the pipe.
        let _ = timeout(LAST_WORDS, all).await;
    }

    /// The problem, with the last lines that the program wrote.
    pub(super) fn with_output(&self, problem: &str) -> String {
        let mut output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(output.make_contiguous()).into_owned();
        let lines: Vec<_> = text
            .lines()
            .filter(|line| !line.trim().is_empty())
            .collect();
        let last = &lines[lines.len().saturating_sub(SHOWN_LINES)..];
        if last.is_empty() {
            return format!("{problem}; it wrote nothing");
        }
        let last: Vec<_> = last
            .iter()
            .map(|line| printable(line.trim(), SHOWN_CHARS))
            .collect();
        format!("{problem}; it wrote: {}", last.join(" / "))
    }

    /// Asks the group to end, and kills what has not within `limit`; then whatever it left behind.
    pub(super) async fn stop(self, limit: Duration) {
        let Self {
            mut child, group, ..
        } = self;
        group.signal(Signal::TERM);
        let _ = timeout(limit, child.wait()).await;
        drop(group);
        let _ = child.wait().await;
        orphans::end(limit).await;
    }
}

/// A command that reads nothing and whose output is piped, in a process group of its own. A path is relative to the directory; a name is looked for
/// in `PATH`.
pub(super) fn command(words: &[String], directory: &Path) -> Command {
    let program = words.first().map_or("", String::as_str);
    let program: OsString = match std::path::absolute(directory.join(program)) {
        Ok(path) if program.contains('/') => path.into(),
        _ => program.into(),
    };
    let mut command = Command::new(program);
    command
        .args(words.iter().skip(1))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    if !directory.as_os_str().is_empty() {
        command.current_dir(directory);
    }
    command
}

async fn keep_end(mut from: impl AsyncRead + Unpin, kept: Arc<Mutex<VecDeque<u8>>>) {
    let mut buf = [0; 4096];
    while let Ok(bytes @ 1..) = from.read(&mut buf).await {
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend(&buf[..bytes]);
        let too_many = kept.len().saturating_sub(KEPT_BYTES);
        kept.drain(..too_many);
    }
}
