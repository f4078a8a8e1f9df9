//! A program that is started, watched and stopped with its process group.

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

use super::orphans;
use super::proc::named;
use crate::shared::printable::printable;

/// How many bytes of a program's output are kept: the last ones.
const KEPT_BYTES: usize = 8 * 1024;

/// How many of the last lines stand in an error.
const SHOWN_LINES: usize = 3;

/// How many characters of each line stand in an error.
const SHOWN_CHARS: usize = 200;

/// Time from a program's end to the end of its output.
const OUTPUT_END: Duration = Duration::from_millis(200);

/// Time from the end of a program's connections to the program's own end.
const ENDING: Duration = Duration::from_millis(500);

/// The process group of a program that was started by [`command`]. The group is killed when this is dropped.
#[derive(Debug)]
struct ProcessGroup(Pid);

impl ProcessGroup {
    /// `None` if the program has ended and its exit status was read.
    fn of(child: &Child) -> Option<Self> {
        Some(Self(Pid::from_raw(child.id()?.try_into().ok()?)?))
    }

    fn signal(&self, signal: Signal) {
        // The group may have ended. The leader's number names the group as long as the group has a process.
        let _ = kill_process_group(self.0, signal);
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// A running program, whose process group is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct RunningProgram {
    child: Child,
    group: ProcessGroup,
    output: Arc<Mutex<VecDeque<u8>>>,
    readers: JoinSet<()>,
}

impl RunningProgram {
    /// Starts a program in `directory`, with variables added to its environment.
    ///
    /// # Errors
    /// It can't be started; the text says why.
    pub(crate) fn start(
        words: &[String],
        directory: &Path,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, String> {
        let name = words.first().map_or("", String::as_str);
        let child = command(words, directory).envs(variables).spawn();
        let mut child = child.map_err(|error| format!("cannot start {name}: {error}"))?;
        let group = ProcessGroup::of(&child).ok_or_else(|| format!("{name} has no process id"))?;
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
    pub(crate) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// How the program ended, if it has ended; `when` is added to the text.
    pub(crate) fn ended(&mut self, when: &str) -> Option<String> {
        let status = self.child.try_wait().ok()??;
        let ended = format!("it ended ({status}) {when}");
        let left = orphans::left();
        // A program that fails may leave a child behind; a program that exits with success goes on as a daemon.
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

    /// Waits a moment for the end of a program that no longer takes connections: its sockets are closed before it ends.
    pub(crate) async fn wait_for_end(&mut self) {
        // If the program goes on, it counts as running.
        let _ = timeout(ENDING, self.child.wait()).await;
    }

    /// Waits until the whole output of an ended program was read.
    pub(crate) async fn read_output(&mut self) {
        let all = async { while self.readers.join_next().await.is_some() {} };
        // A child of the program may still hold the pipe.
        let _ = timeout(OUTPUT_END, all).await;
    }

    /// The output of the program, once it has ended.
    pub(crate) async fn whole_output(&mut self) -> String {
        // If the wait fails, the program has ended.
        let _ = self.child.wait().await;
        self.read_output().await;
        self.output()
    }

    fn output(&self) -> String {
        let mut output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(output.make_contiguous()).into_owned()
    }

    /// The problem with the last lines that the program wrote.
    pub(crate) fn with_output(&self, problem: &str) -> String {
        let text = self.output();
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

    /// Asks the group to end, kills it if it has not ended within `limit`, and ends the processes that it left behind.
    pub(crate) async fn stop(self, limit: Duration) {
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

/// A command without input, with piped output, in a process group of its own. A path is relative to the directory; a
/// plain name is looked up in `PATH`.
fn command(words: &[String], directory: &Path) -> Command {
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
