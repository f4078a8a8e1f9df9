//! CPU time and peak memory of a proxy's processes.

use std::time::Duration;

use nix::time::{ClockId, clock_getcpuclockid};
use nix::unistd::Pid;
use procfs::process::{Process, all_processes};
use tokio::time::{Instant, sleep};

/// How long a proxy may take to start its processes.
const START_LIMIT: Duration = Duration::from_secs(10);

/// Time between two looks at the processes.
const EVERY: Duration = Duration::from_millis(5);

/// The processes of a proxy: those of its process group.
#[derive(Debug)]
pub(super) struct ProxyProcesses(Vec<(Process, ClockId)>);

impl ProxyProcesses {
    /// Waits until the group of `leader` has `count` processes.
    ///
    /// # Errors
    /// The group has fewer processes for too long.
    pub(super) async fn find(leader: u32, count: usize) -> Result<Self, String> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            let found = group(leader);
            if found.len() >= count {
                return Ok(Self(found));
            }
            if Instant::now() >= deadline {
                return Err(format!("it has {} of {count} processes", found.len()));
            }
            sleep(EVERY).await;
        }
    }

    /// CPU time until now: clock_gettime(2) of each process's CPU-time clock, which counts nanoseconds of all threads,
    /// ended ones too, in the kernel and in the program.
    ///
    /// # Errors
    /// A process has ended.
    pub(super) fn cpu_time(&self) -> Result<Duration, String> {
        let times = self.0.iter().map(|(_, clock)| clock.now());
        times
            .map(|time| time.map(Duration::from))
            .sum::<Result<_, _>>()
            .map_err(|error| format!("the CPU time of a process can't be read: {error}"))
    }

    /// The sum of the peaks of resident memory (`VmHWM` in `/proc/PID/status`, proc(5)). A page that two processes share
    /// counts in both.
    ///
    /// # Errors
    /// A process has ended.
    pub(super) fn peak_memory_bytes(&self) -> Result<u64, String> {
        let peaks = self.0.iter().map(|(process, _)| {
            let status = process.status().map_err(|error| error.to_string())?;
            Ok(status.vmhwm.unwrap_or(0) * 1024)
        });
        peaks
            .sum::<Result<_, String>>()
            .map_err(|error| format!("the memory of a process can't be read: {error}"))
    }
}

fn group(leader: u32) -> Vec<(Process, ClockId)> {
    let all = all_processes().into_iter().flatten().flatten();
    let mine = all.filter(|one| {
        one.stat()
            .is_ok_and(|it| u32::try_from(it.pgrp) == Ok(leader))
    });
    mine.filter_map(|one| {
        let clock = clock_getcpuclockid(Pid::from_raw(one.pid)).ok()?;
        Some((one, clock))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::shared::program::RunningProgram;

    #[tokio::test]
    async fn time_and_memory_are_those_of_every_process_of_the_group() {
        let words = ["sh", "-c", "(while :; do :; done) & sleep 600"].map(str::to_owned);
        // Its process group is killed when it is dropped.
        let program = RunningProgram::start(&words, Path::new(""), []).unwrap();
        let processes = ProxyProcesses::find(program.id().unwrap(), 2)
            .await
            .unwrap();
        let before = processes.cpu_time().unwrap();
        // The child of the leader is busy, and not the leader.
        while processes.cpu_time().unwrap() < before + Duration::from_millis(20) {
            sleep(EVERY).await;
        }
        assert!(processes.peak_memory_bytes().unwrap() > 100 * 1024);
    }
}
