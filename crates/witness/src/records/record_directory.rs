//! A directory that holds the newest records of one role, with their packets.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::keeping::Keeping;
use super::record::Record;
use super::role::Role;
use super::safe_directory::SafeDirectory;

/// The records of one role in a directory.
#[derive(Debug)]
pub(crate) struct RecordDirectory {
    path: PathBuf,
    directory: Arc<SafeDirectory>,
    role: Role,
    keeping: Keeping,
    /// Names of the files, oldest first.
    names: VecDeque<String>,
}

impl RecordDirectory {
    /// Makes the directory if need be, and removes the oldest records of an earlier run if there are too many.
    pub(crate) fn open(path: &Path, role: Role, keeping: Keeping) -> io::Result<Self> {
        let open = || {
            let mut directory = Self {
                path: path.to_owned(),
                directory: Arc::new(SafeDirectory::open(path, keeping.mode)?),
                role,
                keeping,
                names: VecDeque::new(),
            };
            directory.prepare()?;
            Ok(directory)
        };
        open().map_err(|error: io::Error| {
            let path = path.display();
            let text = format!(
                "no records can be written to {path} ({error}); or name a directory that this user (uid {}) may write to",
                rustix::process::geteuid().as_raw(),
            );
            io::Error::new(error.kind(), text)
        })
    }

    /// The path of the directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The directory itself.
    pub(crate) fn directory(&self) -> Arc<SafeDirectory> {
        Arc::clone(&self.directory)
    }

    /// Most records that are kept.
    pub(crate) fn most(&self) -> usize {
        self.keeping.most.max(1)
    }

    fn prepare(&mut self) -> io::Result<()> {
        let probe = format!("probe.{}", self.role.as_str());
        self.directory.place(&probe, b"")?;
        self.directory.remove(&probe)?;
        let unfinished = [self.ending("json.tmp"), self.ending("pcapng.tmp")];
        let (finished, packets) = (self.ending("json"), self.ending("pcapng"));
        let mut captures = Vec::new();
        for name in self.directory.names()? {
            if name.starts_with('.') && unfinished.iter().any(|ending| name.ends_with(ending)) {
                // A program that was killed while it wrote has left it.
                self.directory.remove(&name)?;
            } else if name.ends_with(&finished) {
                self.names.push_back(name);
            } else if name.ends_with(&packets) {
                captures.push(name);
            }
        }
        // Packets without a record were left in the same way.
        let known: HashSet<_> = self.names.iter().map(|name| packets_of(name)).collect();
        for capture in captures {
            if !known.contains(&capture) {
                self.directory.remove(&capture)?;
            }
        }
        self.remove_oldest()
    }

    fn ending(&self, kind: &str) -> String {
        format!(".{}.{kind}", self.role.as_str())
    }

    /// Writes a record, its packets first: they are there when it is.
    pub(crate) fn put(&mut self, record: &Record) -> io::Result<()> {
        let name = record.file_name(self.role);
        match record.pcapng(self.keeping.payload) {
            Some(packets) => self.directory.place(&packets_of(&name), &packets)?,
            // Packets of an earlier connection on the same ports.
            None => self.directory.remove(&packets_of(&name))?,
        }
        let json = record.to_bounded_json();
        self.directory.place(&name, json.as_bytes())?;
        // If the ports were in use before, the newer record has replaced the older one.
        self.names.retain(|known| *known != name);
        self.names.push_back(name);
        self.remove_oldest()
    }

    fn remove_oldest(&mut self) -> io::Result<()> {
        while self.names.len() > self.most()
            && let Some(oldest) = self.names.pop_front()
        {
            self.directory.remove(&oldest)?;
            self.directory.remove(&packets_of(&oldest))?;
        }
        Ok(())
    }
}

/// The name of a record's packets.
fn packets_of(name: &str) -> String {
    let stem = name.strip_suffix("json").unwrap_or(name);
    format!("{stem}pcapng")
}
