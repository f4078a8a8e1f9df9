use std::fs;
use std::path::Path;
use std::sync::LazyLock;

/// The inode of the first pid namespace (`PROC_PID_INIT_INO`).
const FIRST_PID_NAMESPACE: &str = "pid:[4026531836]";

/// Whether the numbers that the kernel traces are those in our `/proc`: in a container they are others.
static NUMBERS_ARE_OURS: LazyLock<bool> = LazyLock::new(|| {
    let namespace = fs::read_link("/proc/self/ns/pid");
    namespace.is_ok_and(|namespace| namespace == Path::new(FIRST_PID_NAMESPACE))
});

/// A process, as the kernel names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Process {
    /// Its name (`comm`, at most 15 bytes), if it is known.
    pub name: Option<String>,
    /// Its number.
    pub pid: u32,
}

impl Process {
    /// The process of a traced thread: what the kernel printed, and what `/proc` knows besides.
    pub(crate) fn of_thread(thread: u32, process: Option<u32>, comm: Option<String>) -> Self {
        let ask = *NUMBERS_ARE_OURS;
        let pid = process.or_else(|| ask.then(|| process_of(thread)).flatten());
        let pid = pid.unwrap_or(thread);
        let name = ask.then(|| name_of(pid)).flatten();
        Self {
            name: name.or(comm),
            pid,
        }
    }
}

/// The process that a thread belongs to.
fn process_of(thread: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    let mut lines = status.lines();
    let tgid = lines.find_map(|line| line.strip_prefix("Tgid:"))?;
    tgid.trim().parse().ok()
}

/// The name of a process.
pub(crate) fn name_of(pid: u32) -> Option<String> {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(name.trim_end_matches('\n').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_told_as_its_process() {
        let thread = std::thread::spawn(|| {
            let link = fs::read_link("/proc/thread-self").unwrap();
            let thread = link.file_name().unwrap().to_str().unwrap().parse().unwrap();
            (thread, process_of(thread))
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
        let process = Process::of_thread(4_194_305, None, comm.clone());
        let expected = Process {
            name: comm,
            pid: 4_194_305,
        };
        assert_eq!(process, expected);
    }
}
