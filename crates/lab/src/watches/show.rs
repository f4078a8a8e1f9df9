//! `rstlab show`: draws the timelines of stored records, merged from the halves of proxy and upstream, and of captures.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;

use anyhow::{Context as _, bail};
use rstlab_cli::{MAX_RECORDS, Settings, grouped};
use rstlab_witness::{CaptureFile, Cause, Lane, Record, read_pcapng};

use crate::shared::given::given;
use crate::shared::output::print;
use crate::shared::printable::printable;
use crate::shared::timeline::Timeline;
use crate::watches::captured::{self, is_capture};

/// The most files of a directory that are read: as many as a proxy and an upstream keep there.
const MAX_FILES: usize = 2 * MAX_RECORDS;

/// The most characters of an error, whose path may have 4,096.
const MAX_CHARS: usize = 5000;

/// Show stored records: what proxy, upstream and kernel did on each connection that was reset, and why
///
/// It reads the files that rstlab-proxy and rstlab-upstream write with --record. The two halves of a connection are
/// merged by the connection's addresses and judged anew; the oldest connection comes first. Times are milliseconds since
/// the first event. The pause is the time since the line before. "3 × recv = 128,103" are three calls and the sum of
/// their bytes.
///
/// Of a capture file (pcapng, from tcpdump, tshark, dumpcap or a record) it shows each connection that was reset, and
/// what the packets prove: whether a close sent the RST, or a packet that came after a close caused it. "proxy" is then
/// the side that connected, "upstream" the side that accepted.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 all records were shown, 1 a file is no record, a directory has more than 20,000 \
                  records, or there is nothing to show, 2 bad settings."
)]
pub struct ShowArgs {
    /// Directories with records, single records, or capture files (*.pcapng)
    #[arg(required = true, value_name = "DIR|FILE")]
    paths: Vec<PathBuf>,

    /// Print each record as one line of JSON (crates/lab/schema/record.json describes it)
    #[arg(long)]
    json: bool,

    /// Draw the record, which must be the only one, as SVG into this file, in place of the text
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    svg: Option<PathBuf>,

    /// Show the newest N only
    #[arg(long, value_name = "N")]
    last: Option<String>,

    /// Of a capture file, show the connections that were not reset, too
    #[arg(long)]
    all: bool,

    /// Show the records with this cause only, such as unread-at-close; an unknown cause prints the list of all
    #[arg(long, value_name = "CAUSE")]
    cause: Option<String>,
}

/// The settings of `rstlab show`, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShowConfig {
    paths: Vec<PathBuf>,
    form: ShowForm,
    last: Option<usize>,
    all: bool,
    cause: Option<Cause>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum ShowForm {
    Text,
    Json,
    Svg(PathBuf),
}

impl ShowArgs {
    /// The settings, or `None` if one of them is bad.
    pub fn config(&self, settings: &mut Settings) -> Option<ShowConfig> {
        let last = self.last.as_ref().map(|text| {
            settings.read("--last", text, "a number over 0", |text| {
                text.parse().ok().filter(|last| *last > 0)
            })
        });
        let words = Cause::ALL.map(|cause| (cause.as_str(), cause));
        let cause = self
            .cause
            .as_ref()
            .map(|text| settings.choice("--cause", text, &words));
        let form = match &self.svg {
            Some(path) => ShowForm::Svg(path.clone()),
            None if self.json => ShowForm::Json,
            None => ShowForm::Text,
        };
        Some(ShowConfig {
            paths: self.paths.clone(),
            form,
            last: given(last)?,
            all: self.all,
            cause: given(cause)?,
        })
    }
}

/// Shows the records, and names the files that cannot be read on standard error.
///
/// # Errors
/// There is nothing to show, or the output cannot be written.
pub fn execute(config: &ShowConfig) -> anyhow::Result<ExitCode> {
    let mut found = FoundRecords::new(config.all, MAX_FILES);
    for path in &config.paths {
        found.look(path);
    }
    for trouble in &found.troubles {
        eprintln!("rstlab: {}", printable(trouble, MAX_CHARS));
    }
    let trouble = !found.troubles.is_empty();
    let stored = merged(found.halves).into_iter();
    let mut records: Vec<_> = stored.map(|it| FoundRecord::Stored(it.into())).collect();
    records.extend(found.captured);
    if records.is_empty() && trouble {
        return Ok(ExitCode::FAILURE);
    }
    let records = config.chosen(records)?;
    let mut all = records.iter().filter_map(FoundRecord::record);
    match &config.form {
        ShowForm::Svg(path) => {
            let (Some(record), None) = (all.next(), all.next()) else {
                bail!(
                    "--svg draws one record, and here are {}: name the files of one, or add --last 1",
                    records.len()
                );
            };
            fs::write(path, Timeline::of(&record).svg())
                .with_context(|| format!("the picture cannot be written to {}", path.display()))?;
        }
        ShowForm::Text => print(all.enumerate().map(|(number, record)| {
            let between = if number == 0 { "" } else { "\n\n" };
            format!("{between}{}", Timeline::of(&record).text())
        }))?,
        ShowForm::Json => print(all.map(|record| record.to_json() + "\n"))?,
    }
    Ok(ExitCode::from(u8::from(trouble)))
}

/// A record that was found.
enum FoundRecord {
    Stored(Box<Record>),
    /// A connection of a capture file, by its number. Its record is made when it is needed: a file has many, and a
    /// record takes ten times the memory of the packets that it is made of.
    Captured(Rc<CaptureFile>, usize),
}

impl FoundRecord {
    fn record(&self) -> Option<Cow<'_, Record>> {
        match self {
            Self::Stored(record) => Some(Cow::Borrowed(record)),
            Self::Captured(file, number) => {
                captured::record(file.conversation(*number)).map(Cow::Owned)
            }
        }
    }
}

/// The records that were found in the paths.
struct FoundRecords {
    halves: Vec<Record>,
    /// Records of capture files, which need no merging.
    captured: Vec<FoundRecord>,
    /// Whether connections of capture files that were not reset are kept, too.
    all: bool,
    /// Most files of a directory that are read.
    most_files: usize,
    troubles: Vec<String>,
    seen: HashSet<PathBuf>,
}

impl FoundRecords {
    fn new(all: bool, most_files: usize) -> Self {
        Self {
            halves: Vec::new(),
            captured: Vec::new(),
            all,
            most_files,
            troubles: Vec::new(),
            seen: HashSet::new(),
        }
    }

    fn look(&mut self, path: &Path) {
        if !path.is_dir() {
            self.read(path);
            return;
        }
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

/// Merges the two halves of each connection; sorts the records by time.
fn merged(mut halves: Vec<Record>) -> Vec<Record> {
    let time = |record: &Record| {
        let first = record.events.first().map(|event| event.at_ns);
        (record.unix_time, first)
    };
    halves.sort_by_key(time);
    let mut records: Vec<Record> = Vec::new();
    let mut known: HashMap<_, Vec<usize>> = HashMap::new();
    for half in halves {
        let same = known.entry(half.pair()).or_default();
        let whole = same.iter().find_map(|&at| {
            let other = &records[at];
            // Two halves from the same side are of two connections, even if the addresses are the same.
            let both = |lane| tells_of(other, lane) && tells_of(&half, lane);
            let fits = !both(Lane::Proxy) && !both(Lane::Upstream);
            fits.then(|| Some((at, other.clone().merge(half.clone()).ok()?)))?
        });
        match whole {
            Some((at, whole)) => records[at] = whole,
            None => {
                same.push(records.len());
                records.push(half);
            }
        }
    }
    records.sort_by_key(time);
    records
}

/// Whether a record has events in this lane: then the program of this lane has written it.
fn tells_of(record: &Record, lane: Lane) -> bool {
    record.events.iter().any(|event| event.lane == lane)
}

impl ShowConfig {
    /// The records that were asked for.
    fn chosen(&self, mut records: Vec<FoundRecord>) -> anyhow::Result<Vec<FoundRecord>> {
        let all = records.len();
        if let Some(cause) = self.cause {
            let has_cause = |record: Cow<'_, Record>| record.verdict.cause == cause;
            records.retain(|found| found.record().is_some_and(has_cause));
            if records.is_empty() {
                bail!("none of {all} records has the cause {cause}");
            }
        }
        let more = records
            .len()
            .saturating_sub(self.last.unwrap_or(usize::MAX));
        records.drain(..more);
        Ok(records)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn a_directory_with_too_many_files_has_its_newest_read_and_the_others_counted() {
        let dir = tempfile::tempdir().unwrap();
        let record = include_str!("../../../witness/tests/records/lazy.proxy.json");
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
}
