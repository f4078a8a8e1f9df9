//! Finds records in files and directories.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use rstlab_cli::grouped;
use rstlab_witness::{CaptureFile, Lane, Record, Role, read_pcapng};

use super::halves::{is_fresh, tells_of};
use crate::watches::captured::{self, is_capture};

/// Limit of the wait for the other halves of records.
const MAX_WAIT: Duration = Duration::from_secs(2);

/// Time between two looks for them.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A record that was found.
pub(super) enum FoundRecord {
    Stored(Box<Record>),
    /// A connection of a capture file, by its number. Its record is made when it is needed: a file has many, and a
    /// record takes ten times the memory of the packets that it is made of.
    Captured(Rc<CaptureFile>, usize),
}

impl FoundRecord {
    pub(super) fn record(&self) -> Option<Cow<'_, Record>> {
        match self {
            Self::Stored(record) => Some(Cow::Borrowed(record)),
            Self::Captured(file, number) => {
                captured::record(file.conversation(*number)).map(Cow::Owned)
            }
        }
    }
}

/// The records that were found in the paths.
pub(super) struct FoundRecords {
    pub(super) halves: Vec<Record>,
    /// Records of capture files, which need no merging.
    pub(super) captured: Vec<FoundRecord>,
    /// Whether connections of capture files that were not reset are kept, too.
    all: bool,
    /// Most files of a directory that are read.
    most_files: usize,
    pub(super) troubles: Vec<String>,
    seen: HashSet<PathBuf>,
    /// The directories that were named.
    directories: Vec<PathBuf>,
}

impl FoundRecords {
    pub(super) fn new(all: bool, most_files: usize) -> Self {
        Self {
            halves: Vec::new(),
            captured: Vec::new(),
            all,
            most_files,
            troubles: Vec::new(),
            seen: HashSet::new(),
            directories: Vec::new(),
        }
    }

    pub(super) fn look(&mut self, path: &Path) {
        if !path.is_dir() {
            self.read(path);
            return;
        }
        self.directories.push(path.to_owned());
        match files(path, self.most_files) {
            Ok((files, _)) if files.is_empty() => {
                let text = format!("{}: no records (*.json) in this directory", path.display());
                self.troubles.push(text);
            }
            Ok((files, left_out)) => {
                files.iter().for_each(|file| self.read(file));
                if left_out > 0 {
                    self.troubles.push(format!(
                        "{}: the {} newest records were read; {} older ones were left out",
                        path.display(),
                        grouped(files.len() as u64),
                        grouped(left_out)
                    ));
                }
            }
            Err(error) => self.troubles.push(format!("{}: {error}", path.display())),
        }
    }

    /// Waits for the other halves of fresh records in the directories that were named, at most [`MAX_WAIT`] in all.
    /// Proxy and upstream write independently of each other.
    pub(super) fn wait_for_halves(&mut self) {
        let began = Instant::now();
        let mut missing = self.missing_files();
        while !missing.is_empty() && began.elapsed() < MAX_WAIT {
            thread::sleep(LOOK_AGAIN);
            missing.retain(|paths| {
                // A recorder gives a file its name when the file is whole.
                let path = paths.iter().find(|path| path.is_file());
                path.inspect(|path| self.read(path)).is_none()
            });
        }
    }

    /// For each fresh record whose other half is not there, the paths that the other half may have.
    fn missing_files(&self) -> Vec<Vec<PathBuf>> {
        let pairs = |lane| {
            let told = self.halves.iter().filter(move |it| tells_of(it, lane));
            told.map(Record::pair).collect::<HashSet<_>>()
        };
        let (proxy, upstream) = (pairs(Lane::Proxy), pairs(Lane::Upstream));
        let fresh = self.halves.iter().filter(|half| is_fresh(half));
        let lacks = fresh.filter_map(|half| {
            let pair = half.pair();
            let both = proxy.contains(&pair) && upstream.contains(&pair);
            let role = if upstream.contains(&pair) {
                Role::Proxy
            } else {
                Role::Upstream
            };
            (!both).then(|| half.file_name(role))
        });
        let paths = lacks.map(|name| {
            let paths = self
                .directories
                .iter()
                .map(|directory| directory.join(&name));
            paths.collect::<Vec<_>>()
        });
        paths.filter(|paths| !paths.is_empty()).collect()
    }

    /// Reads a record or a capture file.
    fn read(&mut self, path: &Path) {
        // A file may be named twice, or by its directory and by itself.
        let same = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        if !self.seen.insert(same) {
            return;
        }
        // Reading a FIFO or a device may never end. A path that does not exist is reported below.
        if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
            let text = format!("{}: neither a file nor a directory", path.display());
            return self.troubles.push(text);
        }
        if is_capture(path) {
            return self.read_capture(path);
        }
        match Record::read(path) {
            Ok(record) => self.halves.push(record),
            Err(error) => self.troubles.push(error.to_string()),
        }
    }

    fn read_capture(&mut self, path: &Path) {
        let file = match read_pcapng(path) {
            Ok(file) => Rc::new(file),
            Err(error) => {
                let text = format!("{:#}", anyhow::Error::from(error));
                return self.troubles.push(text);
            }
        };
        let connections = file.conversations().len();
        let before = self.captured.len();
        let all = file.conversations().enumerate();
        let wanted = all.filter(|(_, it)| self.all || captured::is_reset(it));
        let wanted = wanted.map(|(number, _)| FoundRecord::Captured(Rc::clone(&file), number));
        self.captured.extend(wanted);
        if self.captured.len() == before {
            self.troubles.push(format!(
                "{}: none of {connections} connections was reset{}",
                path.display(),
                if connections > 0 {
                    "; --all shows them"
                } else {
                    ""
                }
            ));
        }
    }
}

/// The newest records of a directory, sorted by name, and how many older ones there are. Other files are passed over.
fn files(dir: &Path, most: usize) -> io::Result<(Vec<PathBuf>, u64)> {
    let mut newest = BinaryHeap::new();
    let mut left_out = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with('.') || !name.ends_with(".json") || !entry.file_type()?.is_file() {
            continue;
        }
        let written = match entry.metadata() {
            Ok(metadata) => metadata.modified()?,
            // A recorder has just removed this file.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        newest.push(Reverse((written, entry.path())));
        if newest.len() > most {
            newest.pop();
            left_out += 1;
        }
    }
    let files = newest.into_iter().map(|Reverse((_, path))| path);
    let mut files: Vec<_> = files.collect();
    files.sort();
    Ok((files, left_out))
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    #[test]
    fn a_directory_with_too_many_files_has_its_newest_read_and_the_others_counted() {
        let dir = tempfile::tempdir().unwrap();
        let record = include_str!("../../../../witness/tests/records/lazy.proxy.json");
        for (age, name) in (0..).zip(["b", "d", "a", "c"]) {
            for kind in ["json", "pcapng", "txt"] {
                let path = dir.path().join(format!("{name}.{kind}"));
                fs::write(&path, record).unwrap();
                let written = SystemTime::now() - Duration::from_secs(age);
                let file = fs::File::options().append(true).open(path).unwrap();
                file.set_modified(written).unwrap();
            }
        }
        let path = |name: &str| dir.path().join(name);
        let three = ["a.json", "b.json", "d.json"].map(path).to_vec();
        assert_eq!(files(dir.path(), 3).unwrap(), (three, 1));
        for (most, read, troubles) in [(4, 4, 0), (3, 3, 1), (1, 1, 1)] {
            let mut found = FoundRecords::new(false, most);
            found.look(dir.path());
            assert_eq!((found.halves.len(), found.troubles.len()), (read, troubles));
        }
        let mut found = FoundRecords::new(false, 1);
        found.look(dir.path());
        let text = ": the 1 newest records were read; 3 older ones were left out";
        assert!(found.troubles[0].ends_with(text), "{:?}", found.troubles);
    }

    /// The first look finds the proxy's half alone; then the upstream writes its own.
    #[test]
    fn the_other_half_of_a_fresh_record_is_waited_for() {
        let halves = [
            include_str!("../../../../witness/tests/records/lazy.proxy.json"),
            include_str!("../../../../witness/tests/records/lazy.upstream.json"),
        ];
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let [proxy, upstream] = halves.map(|text| {
            let mut half = Record::from_json(text).unwrap();
            half.unix_time = now.as_secs();
            half
        });
        let [one, other] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let write = |directory: &Path, half: &Record, role| {
            fs::write(directory.join(half.file_name(role)), half.to_json()).unwrap();
        };
        write(one.path(), &proxy, Role::Proxy);
        let mut found = FoundRecords::new(false, 10);
        found.look(one.path());
        found.look(other.path());
        assert_eq!(found.halves.len(), 1);
        write(other.path(), &upstream, Role::Upstream);
        found.wait_for_halves();
        assert_eq!(found.halves, [proxy, upstream]);
        assert!(found.missing_files().is_empty());
    }
}
