//! Counts what our programs leave in tracefs.

use std::path::PathBuf;

use rustix::process::Pid;

/// The trace instances that a process of ours has in tracefs.
///
/// # Panics
/// This is not root, or tracefs is not mounted.
pub fn instances_of(process: u32) -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/sys/kernel/tracing/instances").expect("root, and tracefs");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let prefix = format!("rstlab-{process}-");
    let is_its = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with(&prefix))
    };
    paths.filter(is_its).collect()
}

/// How many trace instances a process of ours has in tracefs.
///
/// # Panics
/// This is not root, or tracefs is not mounted.
pub fn trace_instances(of: Pid) -> usize {
    instances_of(of.as_raw_pid().cast_unsigned()).len()
}
