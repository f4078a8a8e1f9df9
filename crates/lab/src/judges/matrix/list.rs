//! The list of servers and proxies that a matrix is made of, read from a TOML file.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::uri::PathAndQuery;
use serde::de::{Deserialize, Deserializer, Error as _};
use strum::AsRefStr;
use toml::Spanned;

use super::placeholders;
use crate::judges::check::{method, scenario_names};
use crate::shared::wrapped::wrapped;

/// The longest name: it stands in a table.
const MAX_NAME: usize = 28;

/// The longest time to get ready.
const MAX_READY_WITHIN: Duration = Duration::from_secs(300);

/// The longest configuration file, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// The most trials, and the most clients.
const MAX_TRIALS: u64 = 10_000;

/// The servers and proxies of a matrix, and how to check them.
#[derive(Debug, Clone)]
pub struct MatrixList {
    /// Servers and proxies, in the order of the file, servers first.
    pub entries: Vec<MatrixEntry>,
    /// How to check them.
    pub check: MatrixCheck,
}

/// The file as TOML.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct MatrixFile {
    #[serde(default)]
    check: MatrixCheck,
    #[serde(default)]
    server: Vec<Spanned<MatrixEntry>>,
    #[serde(default)]
    proxy: Vec<Spanned<MatrixEntry>>,
}

/// How the entries of a list are checked.
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MatrixCheck {
    /// Trials of each scenario with each client, unless the usual number.
    #[serde(deserialize_with = "number")]
    pub trials: Option<u64>,
    /// Scenarios to run; an empty list means all of them.
    #[serde(deserialize_with = "scenarios")]
    pub scenarios: Vec<String>,
    /// Clients of each size behind a proxy, unless the usual number.
    #[serde(deserialize_with = "number")]
    pub clients: Option<u64>,
}

/// A server or proxy that can be started.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MatrixEntry {
    /// Whether the entry is checked as a server or as a proxy.
    #[serde(skip)]
    pub kind: EntryKind,
    /// Its name in the table.
    pub name: String,
    /// The program and its arguments, with placeholders.
    pub command: Vec<String>,
    /// Variables added to its environment, with placeholders.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// The directory where the program runs.
    #[serde(default)]
    pub directory: PathBuf,
    #[serde(default, rename = "files")]
    file_names: Vec<PathBuf>,
    /// Files that are copied with their placeholders filled in: name and text.
    #[serde(skip)]
    pub files: Vec<(String, String)>,
    /// The port that the program listens on; without it a free one is taken.
    pub port: Option<u16>,
    /// The unix socket that the program listens on, with placeholders.
    pub unix: Option<String>,
    /// Path of the requests.
    #[serde(default = "root")]
    pub path: String,
    /// Method of the requests.
    #[serde(default = "post")]
    pub method: String,
    /// Path of a GET that has to be answered before the check; without it a connection is enough.
    pub ready: Option<String>,
    /// How long that may take.
    #[serde(default = "ten_seconds", deserialize_with = "time")]
    pub ready_within: Duration,
    /// The command that prints the program's version.
    #[serde(default)]
    pub version: Vec<String>,
}

/// What an entry is checked as.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, AsRefStr)]
#[strum(serialize_all = "lowercase")]
pub enum EntryKind {
    /// A server: `rstlab check URL`.
    #[default]
    Server,
    /// A proxy: `rstlab check --through URL`.
    Proxy,
}

/// The first mistake of a list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{} has a mistake\n{}",
    file.display(),
    wrapped(&format!("line {line}: {problem}"), "  ", "    ").trim_end()
)]
pub struct BadList {
    file: PathBuf,
    line: usize,
    problem: String,
}

impl MatrixList {
    /// Reads a list from the text of `file`; directories and files are relative to the file's own directory.
    ///
    /// # Errors
    /// The first mistake.
    pub fn parse(file: &Path, text: &str) -> Result<Self, BadList> {
        let bad = |span: Range<usize>, problem: String| {
            let before = text.get(..span.start).unwrap_or(text);
            BadList {
                file: file.to_owned(),
                line: before.bytes().filter(|byte| *byte == b'\n').count() + 1,
                problem,
            }
        };
        let read: MatrixFile = toml::from_str(text).map_err(|error| {
            let problem = error.message().trim().replace('\n', ", ");
            bad(error.span().unwrap_or_default(), problem)
        })?;
        let mut entries: Vec<MatrixEntry> = Vec::new();
        let servers = read.server.into_iter().map(|one| (EntryKind::Server, one));
        let proxies = read.proxy.into_iter().map(|one| (EntryKind::Proxy, one));
        for (kind, entry) in servers.chain(proxies) {
            let (span, mut entry) = (entry.span(), entry.into_inner());
            entry.kind = kind;
            let is_same = |one: &MatrixEntry| one.kind == kind && one.name == entry.name;
            let completed = match entries.iter().any(is_same) {
                true => Err("another one has this name".to_owned()),
                false => entry.complete(file.parent().unwrap_or(Path::new(""))),
            };
            completed.map_err(|problem| {
                bad(
                    span,
                    format!("{} {:?}: {problem}", kind.as_ref(), entry.name),
                )
            })?;
            entries.push(entry);
        }
        if entries.is_empty() {
            return Err(bad(
                0..0,
                "there is no [[server]] and no [[proxy]]".to_owned(),
            ));
        }
        let check = read.check;
        Ok(Self { entries, check })
    }
}

impl MatrixEntry {
    /// Reads the entry's files, and checks what one key alone can't tell. Paths are relative to `base`.
    fn complete(&mut self, base: &Path) -> Result<(), String> {
        let ready = self.ready.as_deref().unwrap_or(CONNECT);
        let length = self.name.trim().chars().count();
        for (is_good, key, value, allowed) in [
            (
                (1..=MAX_NAME).contains(&length),
                "name",
                &*self.name,
                "1 to 28 characters",
            ),
            (
                is_path(&self.path),
                "path",
                &self.path,
                "a path such as /a?b",
            ),
            (
                method(&self.method).is_some(),
                "method",
                &self.method,
                "POST, PUT, ...",
            ),
            (
                ready == CONNECT || is_path(ready),
                "ready",
                ready,
                "\"connect\", or a path that a GET is answered for",
            ),
        ] {
            if !is_good {
                return Err(format!("`{key}` is {value:?}; allowed: {allowed}"));
            }
        }
        if self.command.first().is_none_or(String::is_empty) {
            return Err("`command` is empty".to_owned());
        }
        if self.port.is_some() && self.unix.is_some() {
            return Err("either `port` or `unix`".to_owned());
        }
        self.directory = base.join(&self.directory);
        for name in &self.file_names {
            let path = self.directory.join(name);
            let text = read_file(&path)
                .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
            let name = path.file_name().unwrap_or_default();
            self.files.push((name.to_string_lossy().into_owned(), text));
        }
        let proxy = self.kind == EntryKind::Proxy;
        self.ready = match self.ready.take() {
            // Behind a proxy nothing answers before the check.
            None => (!proxy).then(|| self.path.clone()),
            connect => connect.filter(|path| path != CONNECT),
        };
        let words: Vec<_> = self
            .command
            .iter()
            .chain(self.environment.values())
            .collect();
        let known = placeholders::names(proxy, self.unix.is_some());
        let mut used = words.iter().flat_map(|text| placeholders::used(text));
        if let Some(word) = used.find(|word| !known.contains(word)) {
            let known = known.join("}, {");
            return Err(format!("no placeholder {{{word}}}; there are {{{known}}}"));
        }
        let files = self.files.iter().map(|(_, text)| text);
        let texts: Vec<_> = words.into_iter().chain(files).collect();
        let is_told = |placeholder| texts.iter().any(|text| text.contains(placeholder));
        if self.port.is_none() && self.unix.is_none() && !is_told("{port}") {
            return Err("nothing says {port}, so it can't know where to listen".to_owned());
        }
        if proxy && !is_told("{upstream}") {
            return Err("nothing says {upstream}, so it can't know where to forward to".to_owned());
        }
        Ok(())
    }
}

fn read_file(path: &Path) -> io::Result<String> {
    let metadata = fs::metadata(path)?;
    // A device or a FIFO may never end.
    match metadata.len() {
        _ if !metadata.is_file() => Err(io::Error::other("no regular file")),
        0..=MAX_FILE => fs::read_to_string(path),
        _ => Err(io::ErrorKind::FileTooLarge.into()),
    }
}

/// The value of `ready` that asks for a connection only.
const CONNECT: &str = "connect";

fn root() -> String {
    "/".to_owned()
}

fn post() -> String {
    "POST".to_owned()
}

fn ten_seconds() -> Duration {
    Duration::from_secs(10)
}

fn is_path(text: &str) -> bool {
    text.starts_with('/') && text.parse::<PathAndQuery>().is_ok()
}

fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    let time = humantime::parse_duration(&text).ok();
    let time = time.filter(|time| !time.is_zero() && *time <= MAX_READY_WITHIN);
    let allowed = "a time such as \"500ms\", \"10s\", at most 5min";
    time.ok_or_else(|| D::Error::custom(format!("{text:?}; allowed: {allowed}")))
}

fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let number = u64::deserialize(deserializer)?;
    match number {
        1..=MAX_TRIALS => Ok(Some(number)),
        _ => Err(D::Error::custom(format!(
            "{number}; allowed: 1 to {MAX_TRIALS}"
        ))),
    }
}

fn scenarios<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let names = Vec::<String>::deserialize(deserializer)?;
    let known: Vec<_> = scenario_names().collect();
    match names.iter().find(|name| !known.contains(&name.as_str())) {
        None => Ok(names),
        Some(name) => Err(D::Error::custom(format!(
            "no scenario is called {name:?}; there are {}",
            known.join(", ")
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_no_file_of_an_entry() {
        let list = "[[server]]\nname = \"one\"\ncommand = [\"{port}\"]\nfiles = [\"/dev/zero\"]";
        let bad = MatrixList::parse(Path::new("list.toml"), list).unwrap_err();
        let told = bad.to_string();
        assert!(
            told.contains("cannot read /dev/zero: no regular file"),
            "{told}"
        );
    }
}
