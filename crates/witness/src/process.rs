//! Finds the process of a traced thread in `/proc`.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use procfs::process::{self, Stat};
use rstlab_wire::monotonic_now;
use rustix::time::{ClockId, clock_gettime};

use crate::evidence::Process;

/// The inode of the first pid namespace (`PROC_PID_INIT_INO`).
const FIRST_PID_NAMESPACE: &str = "pid:[4026531836]";

/// Whether the process numbers in the trace are those in our `/proc`; a container has numbers of its own.
pub(crate) static NUMBERS_ARE_OURS: LazyLock<bool> = LazyLock::new(|| {
    let namespace = fs::read_link("/proc/self/ns/pid");
    namespace.is_ok_and(|namespace| namespace == Path::new(FIRST_PID_NAMESPACE))
});

/// The process of a thread that was traced at a time on `CLOCK_MONOTONIC`, from what the kernel printed and from
/// `/proc`.
pub(crate) fn process_of_thread(
    thread: u32,
    process: Option<u32>,
    comm: Option<String>,
    at: Duration,
) -> Process {
    let had = |number| NUMBERS_ARE_OURS.then(|| had(number, at)).flatten();
    let living = had(thread).and_then(|thread| process_of(&thread));
    // The kernel may remember the process of an older thread with the same number (`trace_find_tgid`): if that process
    // is gone, the result has the thread's own number.
    let process = process.filter(|process| had(*process).is_some());
    let pid = living.or(process).unwrap_or(thread);
    let is_there = living.is_some() || had(pid).is_some();
    let name = is_there.then(|| name_of(pid)).flatten();
    Process {
        name: name.or(comm),
        pid,
    }
}

/// The living thread or process that had this number at a time on `CLOCK_MONOTONIC`. A process that has the number now
/// may have started later: then another process had it.
pub(crate) fn had(number: u32, at: Duration) -> Option<process::Process> {
    let found = look(number)?;
    (started(&found.stat().ok()?) <= at + sleep_since_boot()).then_some(found)
}

/// From `CLOCK_MONOTONIC` to `CLOCK_BOOTTIME`, by which `/proc` tells when a process started.
fn sleep_since_boot() -> Duration {
    let boot = Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default();
    boot.saturating_sub(monotonic_now())
}

/// When a process started, on `CLOCK_BOOTTIME`, rounded down to a tick (10 ms).
pub(crate) fn started(stat: &Stat) -> Duration {
    let per_second = procfs::ticks_per_second().max(1);
    Duration::from_nanos(stat.starttime.saturating_mul(1_000_000_000 / per_second))
}

/// A living thread or process.
fn look(number: u32) -> Option<process::Process> {
    process::Process::new(number.try_into().ok()?).ok()
}

/// The process that a thread belongs to; the kernel gives 0 if the thread has just ended (`__unhash_process`).
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
    fn a_living_thread_has_the_name_of_its_process() {
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
    fn a_thread_that_has_ended_has_the_name_in_the_trace() {
        // No process has a number so high (`PID_MAX_LIMIT`).
        let comm = Some("worker".to_owned());
        let process = process_of_thread(4_194_305, None, comm.clone(), monotonic_now());
        let expected = Process {
            name: comm,
            pid: 4_194_305,
        };
        assert_eq!(process, expected);
    }

    #[test]
    fn a_process_that_started_after_the_event_is_not_its_process() {
        let us = std::process::id();
        let comm = || Some("older".to_owned());
        let name = name_of(us);
        assert_ne!(name, comm());
        let now = process_of_thread(us, Some(7), comm(), monotonic_now());
        assert_eq!(now, Process { name, pid: us });
        let before_us = process_of_thread(us, Some(us), comm(), Duration::ZERO);
        assert_eq!(before_us.name, comm());
    }
}
