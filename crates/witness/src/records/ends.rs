//! A file in which the upstream tells a proxy that shares the directory what its sockets showed at each close: a line
//! of JSON each.
//!
//! A record has a file of its own and may be written later; a line here is written at once, however many connections
//! end.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rstlab_wire::nanos;
use rustix::fs::{AtFlags, OFlags};
use serde::{Deserialize, Serialize};

use super::safe_directory::{SafeDirectory, open_directory, open_file};
use crate::boot::BOOT_ID;
use crate::evidence::{Pair, ServerSide};

/// The name of the file, which is not that of a record.
const FILE: &str = "upstream.ends.jsonl";

/// A file of this length, some 3,000 ends, is replaced by an empty one.
const MAX_BYTES: u64 = 1024 * 1024;

/// Most ends that a reader remembers: those of the last tenth of a second under the heaviest load.
const MAX_KNOWN: usize = 4096;

/// Most bytes of a line; the lines that an upstream writes are shorter.
const MAX_LINE: usize = 4096;

/// Bytes that are read at once; some 60 ends.
const PIECE: usize = 16 * 1024;

/// Most pieces that are read at a time: somebody may write to the file without end.
const MAX_PIECES: u64 = 2 * MAX_BYTES / PIECE as u64;

/// Shortest time between two reads of the file, however many connections are asked about.
const MIN_BETWEEN_READS: Duration = Duration::from_millis(4);

/// The end of one connection, as the upstream told it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ServerEnd {
    /// When it was told, in nanoseconds of `CLOCK_MONOTONIC`.
    pub(crate) at_ns: u64,
    pub(crate) server: SocketAddr,
    pub(crate) client: SocketAddr,
    pub(crate) side: ServerSide,
}

/// A line of the file: an end, and the boot of the machine in which it happened.
#[derive(Serialize, Deserialize)]
struct EndLine<'a> {
    boot_id: &'a str,
    end: ServerEnd,
}

/// Appends lines. Several upstreams of one user may append to one file.
#[derive(Debug)]
pub(crate) struct EndsFile {
    directory: Arc<SafeDirectory>,
}

impl EndsFile {
    pub(crate) fn of(directory: Arc<SafeDirectory>) -> Self {
        Self { directory }
    }

    /// Replaces the file by an empty one. If there is a file, the proxy waits for the upstream's word.
    ///
    /// A proxy that has the old file open reads it to its end.
    pub(crate) fn begin(&self) -> io::Result<()> {
        self.directory.place(FILE, b"")
    }

    /// Appends a line for each end with one write, which `O_APPEND` keeps in one piece beside other writers.
    pub(crate) fn append(&self, ends: &[ServerEnd]) -> io::Result<()> {
        let mut lines = Vec::new();
        for end in ends {
            let line = EndLine {
                boot_id: &BOOT_ID,
                end: *end,
            };
            serde_json::to_writer(&mut lines, &line)?;
            lines.push(b'\n');
        }
        // Opened each time, because another upstream may have replaced the file.
        let mut file = self.directory.append(FILE)?;
        file.write_all(&lines)?;
        if file.metadata()?.len() >= MAX_BYTES {
            self.begin()?;
        }
        Ok(())
    }
}

/// Reads the lines that are appended from now on; lines that are not an end are passed over.
#[derive(Debug)]
pub(crate) struct Ends {
    /// `None` if it cannot be opened.
    directory: Option<OwnedFd>,
    file: Option<File>,
    looked: Option<Instant>,
    piece: Box<[u8]>,
    /// The beginning of a line whose end has not been written yet.
    begun: Vec<u8>,
    known: HashMap<Pair, ServerEnd>,
    /// Oldest first.
    order: VecDeque<(Pair, u64)>,
}

impl Ends {
    pub(crate) fn of(dir: &Path) -> Self {
        let mut ends = Self {
            directory: open_directory(dir).ok(),
            file: None,
            looked: None,
            piece: vec![0; PIECE].into_boxed_slice(),
            begun: Vec::new(),
            known: HashMap::new(),
            order: VecDeque::new(),
        };
        // A file that appears later is read from its beginning.
        let at_its_end = |mut file: File| file.seek(SeekFrom::End(0)).is_ok().then_some(file);
        ends.file = ends.open().and_then(at_its_end);
        ends
    }

    /// Whether an upstream has made the file, so that it is worth waiting for its lines.
    pub(crate) fn are_told(&self) -> bool {
        self.file.is_some() || self.named().is_some()
    }

    /// How a connection ended that began at `since` or later.
    pub(crate) fn find(&mut self, pair: Pair, since: Duration) -> Option<ServerSide> {
        if self
            .looked
            .is_none_or(|at| at.elapsed() >= MIN_BETWEEN_READS)
        {
            self.read();
            self.looked = Some(Instant::now());
        }
        let end = self.known.get(&pair)?;
        // The end of an earlier connection on the same ports was told before this connection began.
        (end.at_ns >= nanos(since)).then_some(end.side)
    }

    fn open(&self) -> Option<File> {
        open_file(self.directory.as_ref()?, FILE, OFlags::RDONLY).ok()
    }

    /// Device and inode of the file that has the name now.
    fn named(&self) -> Option<(u64, u64)> {
        let directory = self.directory.as_ref()?;
        let stat = rustix::fs::statat(directory, FILE, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        Some((stat.st_dev, stat.st_ino))
    }

    fn read(&mut self) {
        for _ in 0..MAX_PIECES {
            if self.file.is_none() {
                self.file = self.open();
            }
            let Some(file) = &mut self.file else {
                return;
            };
            // If the disk fails, the verdict is made without the upstream's word.
            let read = file.read(&mut self.piece).unwrap_or(0);
            if read > 0 {
                let piece = std::mem::take(&mut self.piece);
                self.take(&piece[..read]);
                self.piece = piece;
            } else if self.is_current() {
                return;
            } else {
                // Nobody appends to a file that has been replaced.
                self.file = None;
                self.begun.clear();
            }
        }
    }

    /// Whether the open file still has its name.
    fn is_current(&self) -> bool {
        let opened = self.file.as_ref().map(rustix::fs::fstat);
        match (self.named(), opened) {
            (Some(named), Some(Ok(opened))) => named == (opened.st_dev, opened.st_ino),
            _ => false,
        }
    }

    pub(super) fn take(&mut self, mut bytes: &[u8]) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.begun.extend(&bytes[..end]);
            bytes = &bytes[end + 1..];
            let line = serde_json::from_slice::<EndLine<'_>>(&self.begun).ok();
            let end = line
                .filter(|line| line.boot_id == *BOOT_ID)
                .map(|line| line.end);
            self.begun.clear();
            if let Some(end) = end {
                self.remember(end);
            }
        }
        if self.begun.len() + bytes.len() <= MAX_LINE {
            self.begun.extend(bytes);
        }
    }

    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn known(&self) -> &HashMap<Pair, ServerEnd> {
        &self.known
    }

    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn is_bounded(&self) -> bool {
        self.begun.len() <= MAX_LINE && self.order.len() <= MAX_KNOWN
    }

    fn remember(&mut self, end: ServerEnd) {
        let pair = Pair::new(end.server, end.client);
        self.order.push_back((pair, end.at_ns));
        self.known.insert(pair, end);
        if self.order.len() > MAX_KNOWN
            && let Some((pair, at_ns)) = self.order.pop_front()
            && self.known.get(&pair).is_some_and(|end| end.at_ns == at_ns)
        {
            self.known.remove(&pair);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::records::lazy_upstream;

    fn end(port: u16, at_ns: u64) -> ServerEnd {
        let record = lazy_upstream();
        let mut client = record.client;
        client.set_port(port);
        ServerEnd {
            at_ns,
            server: record.server,
            client,
            side: record.evidence.server.unwrap(),
        }
    }

    fn file_in(dir: &Path) -> EndsFile {
        EndsFile::of(Arc::new(SafeDirectory::open(dir, 0o640).unwrap()))
    }

    fn begun(dir: &Path) -> EndsFile {
        let file = file_in(dir);
        file.begin().unwrap();
        file
    }

    fn known(ends: &mut Ends, port: u16, since: u64) -> bool {
        let ServerEnd { server, client, .. } = end(port, 0);
        ends.looked = None;
        let found = ends.find(Pair::new(server, client), Duration::from_nanos(since));
        found.is_some()
    }

    #[test]
    fn ends_told_after_the_reader_began_are_found() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!Ends::of(dir.path()).are_told());
        let file = begun(dir.path());
        assert!(Ends::of(dir.path()).are_told());
        file.append(&[end(1, 10)]).unwrap();
        let mut ends = Ends::of(dir.path());
        file.append(&[end(2, 20), end(3, 30)]).unwrap();
        assert!(!known(&mut ends, 1, 0), "it was told before");
        assert!(known(&mut ends, 2, 20));
        assert!(known(&mut ends, 3, 5));
        assert!(!known(&mut ends, 3, 31), "that was an earlier connection");
    }

    #[test]
    fn lines_of_another_boot_and_garbage_are_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let mut ends = Ends::of(dir.path());
        begun(dir.path());
        let path = dir.path().join(FILE);
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        let of_another_boot = EndLine {
            boot_id: "another",
            end: end(1, 10),
        };
        serde_json::to_writer(&mut file, &of_another_boot).unwrap();
        file.write_all(b"\n").unwrap();
        file.write_all(b"\xff\n{}\nnull\n").unwrap();
        // A line without an end must not fill the memory.
        file.write_all(&vec![b'x'; 1 << 20]).unwrap();
        assert!(!known(&mut ends, 1, 0));
        assert!(ends.begun.len() <= MAX_LINE);
        file.write_all(b"\n").unwrap();
        // A reader may see a line in pieces.
        let line = EndLine {
            boot_id: &BOOT_ID,
            end: end(2, 10),
        };
        let mut line = serde_json::to_vec(&line).unwrap();
        line.push(b'\n');
        for byte in line {
            assert!(!known(&mut ends, 2, 0));
            file.write_all(&[byte]).unwrap();
        }
        assert!(known(&mut ends, 2, 0));
    }

    #[test]
    fn a_file_of_an_earlier_run_is_replaced_and_nobody_waits_for_a_pipe() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        let fifo = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, &path, fifo, mode, 0).unwrap();
        let mut ends = Ends::of(dir.path());
        assert!(!known(&mut ends, 1, 0));
        assert!(file_in(dir.path()).append(&[end(1, 10)]).is_err());
        begun(dir.path()).append(&[end(1, 10)]).unwrap();
        assert!(known(&mut ends, 1, 0));
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
    }

    #[test]
    fn a_full_file_is_replaced_and_no_end_is_missed() {
        let dir = tempfile::tempdir().unwrap();
        let file = begun(dir.path());
        let path = dir.path().join(FILE);
        let mut ends = Ends::of(dir.path());
        let mut begun_anew = 0;
        for port in 1..10_000 {
            file.append(&[end(port, 10)]).unwrap();
            let bytes = std::fs::metadata(&path).unwrap().len();
            assert!(bytes < MAX_BYTES);
            begun_anew += u32::from(bytes == 0);
            // The reader reads now and then, both before and after the file was replaced.
            if port % 100 == 0 {
                assert!(known(&mut ends, port, 0), "{port}");
                assert!(known(&mut ends, port - 99, 0), "{port}");
            }
        }
        assert!(begun_anew >= 2, "{begun_anew}");
        assert!(!known(&mut ends, 1, 0), "it has forgotten the oldest");
        assert!(ends.known.len() <= MAX_KNOWN && ends.order.len() <= MAX_KNOWN);
    }
}
