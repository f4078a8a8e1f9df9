use std::fs;
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use procfs::process::{self, Stat};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::monotonic_now;

/// The inode of the first pid namespace (`PROC_PID_INIT_INO`).
const FIRST_PID_NAMESPACE: &str = "pid:[4026531836]";

/// Whether the numbers that the kernel traces are those in our `/proc`: in a container they are others.
static NUMBERS_ARE_OURS: LazyLock<bool> = LazyLock::new(|| {
    let namespace = fs::read_link("/proc/self/ns/pid");
    namespace.is_ok_and(|namespace| namespace == Path::new(FIRST_PID_NAMESPACE))
});

/// A process, as the kernel names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Process {
    /// Its name (`comm`, at most 15 bytes), if it is known.
    pub name: Option<String>,
    /// Its number.
    pub pid: u32,
}

impl Process {
    /// The process of a thread that was traced at a time on `CLOCK_MONOTONIC`: what the kernel printed, and what
    /// `/proc` knows besides.
    pub(crate) fn of_thread(
        thread: u32,
        process: Option<u32>,
        comm: Option<String>,
        at: Duration,
    ) -> Self {
        // What has a number now may be younger than the event: then it is not what had it.
        let since_boot = at + sleep_since_boot();
        let had = |number| {
            let found = NUMBERS_ARE_OURS.then(|| look(number)).flatten()?;
            (started(&found.stat().ok()?) <= since_boot).then_some(found)
        };
        let living = had(thread).and_then(|thread| process_of(&thread));
        // What the kernel remembers of a thread's process may be that of an older thread of the same number
        // (`trace_find_tgid`): of one that is gone the thread's own number is told.
        let process = process.filter(|process| had(*process).is_some());
        let pid = living.or(process).unwrap_or(thread);
        let is_there = living.is_some() || had(pid).is_some();
        let name = is_there.then(|| name_of(pid)).flatten();
        Self {
            name: name.or(comm),
            pid,
        }
    }
}

/// From `CLOCK_MONOTONIC` to `CLOCK_BOOTTIME`, by which `/proc` tells when a process started.
fn sleep_since_boot() -> Duration {
    let boot = Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default();
    boot.saturating_sub(monotonic_now())
}

/// When it started, on `CLOCK_BOOTTIME`, rounded down to a tick (10 ms).
pub(crate) fn started(stat: &Stat) -> Duration {
    let per_second = procfs::ticks_per_second().max(1);
    Duration::from_nanos(stat.starttime.saturating_mul(1_000_000_000 / per_second))
}

/// A living thread or process.
fn look(number: u32) -> Option<process::Process> {
    process::Process::new(number.try_into().ok()?).ok()
}

/// The process that a thread belongs to; it is 0 when the thread has just ended (`__unhash_process`).
fn process_of(thread: &process::Process) -> Option<u32> {
    let tgid = thread.status().ok()?.tgid;
    u32::try_from(tgid).ok().filter(|tgid| *tgid > 0)
}

/// The name of a process.
pub(crate) fn name_of(pid: u32) -> Option<String> {
    Some(look(pid)?.stat().ok()?.comm)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_told_as_its_process() {
        let thread = std::thread::spawn(|| {
            let link = fs::read_link("/proc/thread-self").unwrap();
            let thread = link.file_name().unwrap().to_str().unwrap().parse().unwrap();
            (thread, look(thread).and_then(|thread| process_of(&thread)))
        });
        let (thread, process) = thread.join().unwrap();
        assert_ne!(thread, std::process::id());
        assert_eq!(process, Some(std::process::id()));
        assert!(name_of(std::process::id()).is_some());
    }

    #[test]
    fn of_one_that_is_gone_the_trace_tells() {
        // No process has a number so high (`PID_MAX_LIMIT`).
        let comm = Some("worker".to_owned());
        let process = Process::of_thread(4_194_305, None, comm.clone(), monotonic_now());
        let expected = Process {
            name: comm,
            pid: 4_194_305,
        };
        assert_eq!(process, expected);
    }

    #[test]
    fn one_that_is_younger_than_the_event_is_another() {
        let us = std::process::id();
        let comm = || Some("older".to_owned());
        let name = name_of(us);
        assert_ne!(name, comm());
        let now = Process::of_thread(us, Some(7), comm(), monotonic_now());
        assert_eq!(now, Process { name, pid: us });
        let before_us = Process::of_thread(us, Some(us), comm(), Duration::ZERO);
        assert_eq!(before_us.name, comm());
    }
}
