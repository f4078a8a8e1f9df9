//! Reads what strace wrote.

use std::collections::HashMap;

/// The calls in the output of `strace -f`, without the numbers of their threads, in the order in which they ended. A
/// call that the line of another thread interrupts is joined from its two lines.
pub fn strace_calls(trace: &str) -> impl Iterator<Item = String> {
    let mut unfinished: HashMap<&str, &str> = HashMap::new();
    trace.lines().filter_map(move |line| {
        let (thread, text) = line.split_once(' ').expect("-f puts the thread first");
        // The numbers form a column: a shorter number has more blanks after it.
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
