use procfs::process::{Process, Stat};

/// What `/proc/PID/stat` tells of a process (proc(5)); `None` if there is none, or it can't be seen.
pub(super) fn stat(id: i32) -> Option<Stat> {
    Process::new(id).ok()?.stat().ok()
}

/// It, for people.
pub(super) fn named(process: &Stat) -> String {
    format!("{} ({})", process.comm, process.pid)
}
