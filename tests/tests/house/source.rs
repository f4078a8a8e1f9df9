//! The Rust files of the workspace, without their tests.

use std::fs;
use std::path::{Path, PathBuf};

/// A file without the tests at its end.
pub(crate) struct SourceFile {
    /// From the root of the workspace.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl SourceFile {
    /// The lines with their numbers.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text
            .lines()
            .enumerate()
            .map(|(at, line)| (at + 1, line))
    }
}

/// The root of the workspace.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every Rust file in a folder of the workspace, from its root.
pub(crate) fn rust_files(folder: &str) -> Vec<String> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).expect("a folder") {
            let entry = entry.expect("an entry");
            let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
            if entry.path().is_dir() {
                folders.push(path);
            } else if path.ends_with(".rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// Every file of the crates' own code.
pub(crate) fn sources() -> Vec<SourceFile> {
    let mut files = rust_files("crates");
    files.retain(|path| path.split('/').nth(2) == Some("src"));
    files.into_iter().filter_map(|path| read(&path)).collect()
}

/// A file; `None` if it is one of tests.
pub(crate) fn read(path: &str) -> Option<SourceFile> {
    let text = fs::read_to_string(root().join(path)).expect("text");
    let (folder, name) = path.rsplit_once('/')?;
    let module = name.trim_end_matches(".rs");
    // The file that declares the module says whether it is for tests alone.
    let declares_test = |parent: String| {
        let declaration = format!("#[cfg(test)]\nmod {module};");
        fs::read_to_string(root().join(parent)).is_ok_and(|text| text.contains(&declaration))
    };
    let parents = ["/mod.rs", "/lib.rs", ".rs"].map(|end| format!("{folder}{end}"));
    if parents.into_iter().any(declares_test) {
        return None;
    }
    let end = text.find("#[cfg(test)]\nmod tests {");
    Some(SourceFile {
        path: path.to_owned(),
        text: text[..end.unwrap_or(text.len())].to_owned(),
    })
}

/// The struct, enum or trait that a line declares.
pub(crate) fn declared_type(line: &str) -> Option<&str> {
    let line = without_visibility(line);
    let kinds = ["struct ", "enum ", "trait "];
    let rest = kinds.iter().find_map(|kind| line.strip_prefix(kind))?;
    let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
    Some(&rest[..end.unwrap_or(rest.len())]).filter(|name| !name.is_empty())
}

/// A line without blanks and without `pub`, `pub(crate)` and the like at its beginning.
pub(crate) fn without_visibility(line: &str) -> &str {
    let line = line.trim_start();
    match line.strip_prefix("pub") {
        Some(rest) if rest.starts_with('(') => rest.split_once(") ").map_or(line, |(_, rest)| rest),
        Some(rest) => rest.strip_prefix(' ').unwrap_or(line),
        None => line,
    }
}
