use std::collections::HashMap;

/// The calls in the output of `strace -f`, each with its thread's number cut off, in the order in which they ended: one
/// that another thread's line interrupts is put together.
pub fn strace_calls(trace: &str) -> impl Iterator<Item = String> {
    let mut unfinished: HashMap<&str, &str> = HashMap::new();
    trace.lines().filter_map(move |line| {
        let (thread, text) = line.split_once(' ').expect("-f puts the thread first");
        // In a column: a shorter number is followed by more blanks.
        let text = text.trim_start();
        if let Some(start) = text.strip_suffix(" <unfinished ...>") {
            unfinished.insert(thread, start);
            return None;
        }
        Some(match text.split_once(" resumed>") {
            Some((_, rest)) => unfinished.remove(thread).unwrap_or_default().to_owned() + rest,
            None => text.to_owned(),
        })
    })
}
