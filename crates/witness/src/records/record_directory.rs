//! A directory that holds the newest records of one role, with their packets.

use std::collections::{HashSet, VecDeque};
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::record::Record;
use super::role::Role;
use crate::evidence::canonical;

/// The mode of the files, which everybody may read: proxy, upstream and `rstlab show` may run as three users.
pub(crate) const READABLE_BY_ALL: u32 = 0o644;

/// The records of one role in a directory.
#[derive(Debug)]
pub(crate) struct RecordDirectory {
    dir: PathBuf,
    role: Role,
    max: usize,
    /// Names of the files, oldest first.
    names: VecDeque<String>,
}

impl RecordDirectory {
    /// Makes the directory if need be, and removes the oldest records of an earlier run if there are more than `max`.
    pub(crate) fn open(dir: &Path, role: Role, max: usize) -> io::Result<Self> {
        let mut directory = Self {
            dir: dir.to_owned(),
            role,
            max: max.max(1),
            names: VecDeque::new(),
        };
        directory.prepare().map_err(|error| {
            let dir = dir.display();
            let text = format!(
                "no records can be written to {dir} ({error}); name a directory that this user (uid {}) may write to",
                rustix::process::geteuid().as_raw(),
            );
            io::Error::new(error.kind(), text)
        })?;
        Ok(directory)
    }

    /// The path of the directory.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Most records that are kept.
    pub(crate) fn most(&self) -> usize {
        self.max
    }

    fn prepare(&mut self) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        let probe = self.dir.join(format!(".probe.{}.tmp", self.role.as_str()));
        write(&probe, b"")?;
        fs::remove_file(&probe)?;
        let unfinished = [self.ending("json.tmp"), self.ending("pcapng.tmp")];
        let (finished, packets) = (self.ending("json"), self.ending("pcapng"));
        let mut found = Vec::new();
        let mut captures = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            // A name that is no text is not of a file of ours.
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            if name.starts_with('.') && unfinished.iter().any(|ending| name.ends_with(ending)) {
                // A program that was killed while it wrote has left it.
                fs::remove_file(entry.path())?;
            } else if name.ends_with(&finished) {
                found.push((entry.metadata()?.modified()?, name));
            } else if name.ends_with(&packets) {
                captures.push(name);
            }
        }
        // Packets without a record were left in the same way.
        let known: HashSet<_> = found.iter().map(|(_, name)| packets_of(name)).collect();
        for capture in captures {
            if !known.contains(&capture) {
                fs::remove_file(self.dir.join(capture))?;
            }
        }
        found.sort();
        self.names = found.into_iter().map(|(_, name)| name).collect();
        self.remove_oldest()
    }

    fn ending(&self, kind: &str) -> String {
        format!(".{}.{kind}", self.role.as_str())
    }

    /// Writes a record, its packets first: they are there when it is.
    pub(crate) fn put(&mut self, record: &Record) -> io::Result<()> {
        let name = name(record.server, record.client, self.role);
        match record.pcapng() {
            Some(packets) => self.place(&packets_of(&name), &packets)?,
            // Packets of an earlier connection on the same ports.
            None => self.remove(&packets_of(&name))?,
        }
        self.place(&name, record.to_bounded_json().as_bytes())?;
        // If the ports were in use before, the newer record has replaced the older one.
        self.names.retain(|known| *known != name);
        self.names.push_back(name);
        self.remove_oldest()
    }

    /// Writes a file under another name first: a reader never sees half of one.
    fn place(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let unfinished = self.dir.join(format!(".{name}.tmp"));
        let written =
            write(&unfinished, bytes).and_then(|()| fs::rename(&unfinished, self.dir.join(name)));
        if written.is_err() {
            // The file may not be there; the first error is the one to report.
            let _ = fs::remove_file(&unfinished);
        }
        written
    }

    /// Removes a file that may be gone already.
    fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.dir.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    fn remove_oldest(&mut self) -> io::Result<()> {
        while self.names.len() > self.max
            && let Some(oldest) = self.names.pop_front()
        {
            self.remove(&oldest)?;
            self.remove(&packets_of(&oldest))?;
        }
        Ok(())
    }
}

/// `127.0.0.1_8000-127.0.0.1_45678.proxy.json`: no character that means something to a shell.
fn name(server: SocketAddr, client: SocketAddr, role: Role) -> String {
    let end = |address: SocketAddr| canonical(address).to_string().replace(['[', ']'], "");
    let pair = format!("{}-{}", end(server), end(client)).replace(':', "_");
    format!("{pair}.{}.json", role.as_str())
}

/// The name of a record's packets.
fn packets_of(name: &str) -> String {
    let stem = name.strip_suffix("json").unwrap_or(name);
    format!("{stem}pcapng")
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    let mut file = options.mode(READABLE_BY_ALL).open(path)?;
    // The umask may have taken rights away.
    file.set_permissions(Permissions::from_mode(READABLE_BY_ALL))?;
    file.write_all(bytes)
}
