//! What a program leaves behind when it ends, a daemon or a child of its own, is given to this process and ended by it.

use std::collections::HashSet;
use std::time::Duration;

use procfs::process::{ProcState, Stat, all_processes};
use rustix::process::{
    Pid, Signal, WaitOptions, getpid, kill_process, set_child_subreaper, waitpid,
};
use tokio::time::{Instant, sleep};

/// Between two looks at what is left.
const EVERY: Duration = Duration::from_millis(5);

/// From here on, whoever loses its parent below this process becomes a child of it (prctl(2),
/// `PR_SET_CHILD_SUBREAPER`), in place of a child of init.
pub(super) fn adopt() {
    // Every kernel since 3.4 does; without it they are init's, and we don't find them.
    let _ = set_child_subreaper(Some(getpid()));
}

/// The children of this process that run. Do not ask while one is waited for.
pub(super) fn left() -> Vec<Stat> {
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
    // `None` is one whose first thread has ended, and not the others.
    is_zombie && !matches!(waitpid(id, WaitOptions::NOHANG), Ok(None))
}

/// Asks every child of this process to end, and kills those that have not within `limit`. Returns whom it could not
/// end: what runs as another user.
pub(super) async fn end(limit: Duration) -> Vec<Stat> {
    for signal in [Signal::TERM, Signal::KILL] {
        let deadline = Instant::now() + limit;
        let mut told = HashSet::new();
        // One that ends may leave others behind, so it takes rounds.
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
                    // A child's number is not given to anybody else before we have asked how it ended.
                    let _ = kill_process(id, signal);
                }
            }
            sleep(EVERY).await;
        }
    }
    left()
}
