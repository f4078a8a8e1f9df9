//! Ends the processes that a program leaves behind, such as a daemon: this process becomes their parent.

use std::collections::HashSet;
use std::time::Duration;

use procfs::process::{ProcState, Stat, all_processes};
use rustix::process::{
    Pid, Signal, WaitOptions, getpid, kill_process, set_child_subreaper, waitpid,
};
use tokio::time::{Instant, sleep};

/// Time between two looks at the processes that are left.
const EVERY: Duration = Duration::from_millis(5);

/// Makes this process the new parent of its descendants that lose theirs, in place of init (prctl(2),
/// `PR_SET_CHILD_SUBREAPER`).
pub(crate) fn adopt() {
    // Every kernel since 3.4 has it; without it the orphans become children of init and are not found.
    let _ = set_child_subreaper(Some(getpid()));
}

/// The running children of this process. Don't call this while another task waits for a child.
pub(crate) fn left() -> Vec<Stat> {
    let own = getpid().as_raw_pid();
    let all = all_processes().into_iter().flatten().flatten();
    all.filter_map(|one| one.stat().ok())
        .filter(|one| one.ppid == own && !has_ended(one))
        .collect()
}

/// Takes an ended child out of the list of processes.
fn has_ended(child: &Stat) -> bool {
    let id = Pid::from_raw(child.pid);
    let is_zombie = matches!(child.state(), Ok(ProcState::Zombie | ProcState::Dead));
    // `None` means that the first thread of the child has ended and other threads run.
    is_zombie && !matches!(waitpid(id, WaitOptions::NOHANG), Ok(None))
}

/// Asks every child of this process to end, and kills those that have not ended within `limit`. Returns the children that
/// it could not end: they run as another user.
pub(crate) async fn end(limit: Duration) -> Vec<Stat> {
    for signal in [Signal::TERM, Signal::KILL] {
        let deadline = Instant::now() + limit;
        let mut told = HashSet::new();
        // A child that ends may leave children of its own behind, so it takes several rounds.
        loop {
            let left = left();
            if left.is_empty() {
                return left;
            }
            if Instant::now() >= deadline {
                break;
            }
            for id in left.iter().filter_map(|one| Pid::from_raw(one.pid)) {
                if told.insert(id) {
                    // The kernel does not reuse a child's number before its exit status was read.
                    let _ = kill_process(id, signal);
                }
            }
            sleep(EVERY).await;
        }
    }
    left()
}
