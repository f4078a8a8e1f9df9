//! What holds for any list of servers and proxies.

use std::path::Path;

use super::list::MatrixList;

/// A list that is read has an entry, and each of them a command; a list with a mistake names a line that it has.
pub(crate) fn matrix_list(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match MatrixList::parse(Path::new("/nowhere/list.toml"), &text) {
        Ok(list) => {
            assert!(!list.entries.is_empty());
            assert!(list.entries.iter().all(|entry| !entry.command.is_empty()));
        }
        Err(bad) => {
            let told = bad.to_string();
            let line = told
                .split("line ")
                .nth(1)
                .and_then(|rest| rest.split(':').next());
            let line: usize = line.expect("a line").parse().expect("a number");
            assert!((1..=text.split('\n').count()).contains(&line), "{told}");
        }
    }
}
