//! Processes as `/proc` shows them.

use procfs::process::{Process, Stat};

/// The process in `/proc/PID/stat` (proc(5)); `None` if there is none, or if this user can't see it.
pub(crate) fn stat(id: i32) -> Option<Stat> {
    Process::new(id).ok()?.stat().ok()
}

/// The process's name and number, for messages.
pub(crate) fn named(process: &Stat) -> String {
    format!("{} ({})", process.comm, process.pid)
}
