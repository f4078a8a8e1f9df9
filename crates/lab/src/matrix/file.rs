use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Method;
use http::uri::PathAndQuery;
use toml::de::DeTable;

use super::place;
use super::reader::{Keys, Reader};
use crate::check::scenario_names;
use crate::wrapped::wrapped;

/// Longest name: it stands in a table.
const MOST_NAME: usize = 28;

/// Time to get ready, unless the entry says another.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// Longest configuration file.
const MOST_FILE: u64 = 1024 * 1024;

/// What a matrix is made of.
#[derive(Debug, Clone)]
pub struct List {
    /// Servers and proxies, in the order of the file, servers first.
    pub entries: Vec<Entry>,
    /// Trials of each scenario with each client, unless the usual number.
    pub trials: Option<u64>,
    /// Scenarios to run; empty is all of them.
    pub scenarios: Vec<String>,
    /// Clients of each size behind a proxy, unless the usual number.
    pub clients: Option<u64>,
}

/// A server or proxy that can be started.
#[derive(Debug, Clone)]
pub struct Entry {
    /// What it is tested as.
    pub kind: Kind,
    /// Its name in the table.
    pub name: String,
    /// The program and its arguments, with placeholders.
    pub command: Vec<String>,
    /// Variables added to its environment, with placeholders.
    pub environment: BTreeMap<String, String>,
    /// Where it runs.
    pub directory: PathBuf,
    /// Files that are copied with their placeholders filled in: name and text.
    pub files: Vec<(String, String)>,
    /// The port it listens on; none is a free one.
    pub port: Option<u16>,
    /// The unix socket it listens on, with placeholders.
    pub unix: Option<String>,
    /// Path of the requests.
    pub path: String,
    /// Their method.
    pub method: String,
    /// What a GET has to be answered for; none is a connection.
    pub ready: Option<String>,
    /// For how long that may take.
    pub ready_within: Duration,
    /// The command that prints its version.
    pub version: Vec<String>,
}

/// What an entry is tested as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A server: `rstlab check URL`.
    Server,
    /// A proxy: `rstlab check --through URL`.
    Proxy,
}

/// Everything that is wrong with a file, line by line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.text())]
pub struct BadFile {
    file: PathBuf,
    problems: BTreeSet<(usize, String)>,
}

impl BadFile {
    fn text(&self) -> String {
        let file = self.file.display();
        let count = self.problems.len();
        let mut text = format!(
            "{file}: {count} mistake{}",
            if count == 1 { "" } else { "s" }
        );
        for (line, problem) in &self.problems {
            text.push('\n');
            text += wrapped(&format!("line {line}: {problem}"), "  ", "    ").trim_end();
        }
        text
    }
}

impl List {
    /// Reads a list from the text of `file`; directories and files are relative to the file's own directory.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(file: &Path, text: &str) -> Result<Self, BadFile> {
        let mut reader = Reader {
            text,
            directory: file.parent().unwrap_or(Path::new("")),
            problems: BTreeSet::new(),
            names: BTreeSet::new(),
        };
        let list = reader.list();
        if reader.problems.is_empty() {
            Ok(list)
        } else {
            Err(BadFile {
                file: file.to_owned(),
                problems: reader.problems,
            })
        }
    }
}

impl<'a> Reader<'a> {
    fn list(&mut self) -> List {
        let mut list = List {
            entries: Vec::new(),
            trials: None,
            scenarios: Vec::new(),
            clients: None,
        };
        let (document, errors) = DeTable::parse_recoverable(self.text);
        for error in errors {
            self.wrong(
                &error.span().unwrap_or_default(),
                error.message().trim().replace('\n', ", "),
            );
        }
        let mut keys = Keys {
            of: "the file".to_owned(),
            span: document.span(),
            left: document.into_inner(),
        };
        if let Some(mut check) = self.table(&mut keys, "check") {
            list.trials = self.number(&mut check, "trials");
            list.clients = self.number(&mut check, "clients");
            if let Some((names, span)) = self.take::<Vec<String>>(&mut check, "scenarios") {
                let known: Vec<_> = scenario_names().collect();
                for name in names.iter().filter(|name| !known.contains(&name.as_str())) {
                    self.wrong(
                        &span,
                        format!(
                            "no scenario is called {name:?}; there are {}",
                            known.join(", ")
                        ),
                    );
                }
                list.scenarios = names;
            }
            self.finish(check);
        }
        for (key, kind) in [("server", Kind::Server), ("proxy", Kind::Proxy)] {
            for keys in self.tables(&mut keys, key) {
                list.entries.extend(self.entry(keys, kind));
            }
        }
        if list.entries.is_empty() && self.problems.is_empty() {
            self.wrong(
                &(0..0),
                "there is no [[server]] and no [[proxy]]".to_owned(),
            );
        }
        self.finish(keys);
        list
    }

    fn entry(&mut self, mut keys: Keys<'a>, kind: Kind) -> Option<Entry> {
        let missing = ["name", "command"]
            .into_iter()
            .filter(|key| !keys.left.contains_key(*key));
        let missing: Vec<_> = missing.collect();
        let name = self.take::<String>(&mut keys, "name");
        if let Some((name, span)) = &name {
            keys.of = format!("{} {name:?}", keys.of);
            if name.trim().is_empty() || name.chars().count() > MOST_NAME {
                self.wrong(
                    span,
                    format!("{}: a name has 1 to {MOST_NAME} characters", keys.of),
                );
            }
            if !self.names.insert((kind, name.clone())) {
                self.wrong(span, format!("{}: another one has this name", keys.of));
            }
        }
        let command = self.take::<Vec<String>>(&mut keys, "command");
        let environment = self.take::<BTreeMap<String, String>>(&mut keys, "environment");
        let directory = self.take::<String>(&mut keys, "directory");
        let directory = self
            .directory
            .join(directory.map_or(String::new(), |(name, _)| name));
        let files = self.files(&mut keys, &directory);
        let port = self.take::<u16>(&mut keys, "port");
        let unix = self.take::<String>(&mut keys, "unix");
        if let (Some(_), Some((_, span))) = (&port, &unix) {
            self.wrong(span, format!("{}: either `port` or `unix`", keys.of));
        }
        let allowed = "a path such as /a?b";
        let path = self.read(&mut keys, "path", allowed, |text| {
            is_path(text).then(|| text.to_owned())
        });
        let path = path.unwrap_or("/".to_owned());
        let method = self.read(&mut keys, "method", "POST, PUT, ...", |text| {
            let method = Method::from_bytes(text.as_bytes()).ok();
            method
                .filter(|one| *one != Method::CONNECT)
                .map(|one| one.to_string())
        });
        let allowed = "\"connect\", or a path that a GET is answered for";
        let ready = self.read(&mut keys, "ready", allowed, |text| match text {
            "connect" => Some(None),
            path => is_path(path).then(|| Some(path.to_owned())),
        });
        let allowed = "a time such as \"500ms\", \"10s\", at most 5min";
        let ready_within = self.read(&mut keys, "ready_within", allowed, |text| {
            let time = humantime::parse_duration(text).ok();
            time.filter(|time| !time.is_zero() && *time <= Duration::from_secs(300))
        });
        let version = self.take::<Vec<String>>(&mut keys, "version");

        for key in missing {
            let span = keys.span.clone();
            self.wrong(&span, format!("{}: `{key}` is missing", keys.of));
        }
        if let Some((words, span)) = &command {
            if words.first().is_none_or(String::is_empty) {
                self.wrong(span, format!("{}: `command` is empty", keys.of));
            }
            let environment = environment.iter().flat_map(|(map, _)| map.values());
            let texts: Vec<&String> = words.iter().chain(environment).collect();
            let known = place::names(kind == Kind::Proxy, unix.is_some());
            for word in texts.iter().flat_map(|text| place::placeholders(text)) {
                if !known.contains(&word) {
                    let known = known.join("}, {");
                    self.wrong(
                        span,
                        format!(
                            "{}: no placeholder {{{word}}}; there are {{{known}}}",
                            keys.of
                        ),
                    );
                }
            }
            let files = files.iter().map(|(_, text)| text);
            let told = |what: &str| {
                texts
                    .iter()
                    .copied()
                    .chain(files.clone())
                    .any(|text| text.contains(what))
            };
            if port.is_none() && unix.is_none() && !told("{port}") {
                self.wrong(
                    span,
                    format!(
                        "{}: nothing says {{port}}, so it can't know where to listen",
                        keys.of
                    ),
                );
            }
            if kind == Kind::Proxy && !told("{upstream}") {
                self.wrong(
                    span,
                    format!(
                        "{}: nothing says {{upstream}}, so it can't know where to forward to",
                        keys.of
                    ),
                );
            }
        }
        self.finish(keys);
        Some(Entry {
            kind,
            name: name?.0,
            command: command?.0,
            environment: environment.map(|(map, _)| map).unwrap_or_default(),
            directory,
            files,
            port: port.map(|(port, _)| port),
            unix: unix.map(|(path, _)| path),
            // Behind a proxy nobody answers before the check.
            ready: ready.unwrap_or((kind == Kind::Server).then(|| path.clone())),
            path,
            method: method.unwrap_or("POST".to_owned()),
            ready_within: ready_within.unwrap_or(READY_WITHIN),
            version: version.map(|(words, _)| words).unwrap_or_default(),
        })
    }

    fn files(&mut self, keys: &mut Keys<'a>, directory: &Path) -> Vec<(String, String)> {
        let mut files = Vec::new();
        let Some((names, span)) = self.take::<Vec<String>>(keys, "files") else {
            return files;
        };
        for name in names {
            let path = directory.join(&name);
            let Some(base) = path
                .file_name()
                .map(|base| base.to_string_lossy().into_owned())
            else {
                self.wrong(&span, format!("{}: {name:?} is no file", keys.of));
                continue;
            };
            let size = std::fs::metadata(&path).map(|data| data.len());
            match size.and_then(|size| match size {
                0..=MOST_FILE => std::fs::read_to_string(&path),
                _ => Err(std::io::ErrorKind::FileTooLarge.into()),
            }) {
                Ok(text) => files.push((base, text)),
                Err(error) => {
                    self.wrong(
                        &span,
                        format!("{}: cannot read {}: {error}", keys.of, path.display()),
                    );
                }
            }
        }
        files
    }
}

fn is_path(text: &str) -> bool {
    text.starts_with('/') && text.parse::<PathAndQuery>().is_ok()
}
