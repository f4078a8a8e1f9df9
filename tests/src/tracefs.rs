use rustix::process::Pid;

/// How many trace instances a process of ours has in tracefs.
///
/// # Panics
/// This is not root, or tracefs is not mounted.
pub fn trace_instances(of: Pid) -> usize {
    let entries = std::fs::read_dir("/sys/kernel/tracing/instances").expect("root, and tracefs");
    let theirs = format!("rstlab-{}-", of.as_raw_pid());
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    names
        .filter(|name| name.to_string_lossy().starts_with(&theirs))
        .count()
}
