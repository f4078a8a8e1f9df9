//! `rstlab show`: prints stored records, the halves of proxy and upstream put together, and what a capture file tells.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use rstlab_cli::{MOST_RECORDS, Settings, grouped};
use rstlab_witness::{Cause, Lane, Record};

use crate::captured::{self, is_capture};
use crate::output::print;
use crate::printable::printable;
use crate::timeline::Timeline;

/// Most files of a directory that are read: all that a proxy and an upstream may leave there.
const MOST_FILES: usize = 2 * MOST_RECORDS;

/// Most characters of an error: its path may have 4,096.
const MOST_CHARS: usize = 5000;

/// Show stored records: what proxy, upstream and kernel did on each connection that was reset, and why
///
/// It reads what rstlab-proxy and rstlab-upstream write with --record. The two halves of a connection are put together
/// by its addresses, and judged anew; the oldest comes first. Times are milliseconds since the first event. The
/// pause is the time since the line before. "3 × recv = 128,103" are three calls and the sum of their bytes.
///
/// Of a capture file (pcapng: tcpdump, tshark, dumpcap or a record's own) it shows each connection that was reset, and
/// what its packets prove: whether a close sent the RST, or something that came after a close. "Proxy" is then who
/// connected, "upstream" who accepted.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 all records were shown, 1 a file holds no record, a directory more than are read \
                  (20,000), or there is nothing to show, 2 bad settings."
)]
pub struct Args {
    /// Directories with records, single records, or capture files (*.pcapng)
    #[arg(required = true, value_name = "DIR|FILE")]
    paths: Vec<PathBuf>,

    /// Print each record as one line of JSON (schema/record.json)
    #[arg(long)]
    json: bool,

    /// Draw the only record into this file, in place of the text
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    svg: Option<PathBuf>,

    /// Only the newest N
    #[arg(long, value_name = "N")]
    last: Option<String>,

    /// Of a capture file also the connections that were not reset
    #[arg(long)]
    all: bool,

    /// Only those with this cause, such as unread-at-close
    #[arg(long, value_name = "CAUSE")]
    cause: Option<String>,
}

/// What to show, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    paths: Vec<PathBuf>,
    shape: Shape,
    last: Option<usize>,
    all: bool,
    cause: Option<Cause>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Shape {
    Text,
    Json,
    Svg(PathBuf),
}

impl Args {
    /// The settings, or `None` if one of them is bad.
    pub fn config(&self, settings: &mut Settings) -> Option<Config> {
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
        let shape = match &self.svg {
            Some(path) => Shape::Svg(path.clone()),
            None if self.json => Shape::Json,
            None => Shape::Text,
        };
        Some(Config {
            paths: self.paths.clone(),
            shape,
            last: last.map_or(Some(None), |last| last.map(Some))?,
            all: self.all,
            cause: cause.map_or(Some(None), |cause| cause.map(Some))?,
        })
    }
}

/// Shows the records; what cannot be read is told on standard error.
///
/// # Errors
/// There is nothing to show, or the output cannot be written.
pub fn execute(config: &Config) -> anyhow::Result<ExitCode> {
    let mut found = Found::new(config.all, MOST_FILES);
    for path in &config.paths {
        found.look(path);
    }
    for trouble in &found.troubles {
        eprintln!("rstlab: {}", printable(trouble, MOST_CHARS));
    }
    let trouble = !found.troubles.is_empty();
    let mut records = merged(found.halves);
    records.extend(found.captured);
    if records.is_empty() && trouble {
        return Ok(ExitCode::FAILURE);
    }
    let records = config.chosen(records)?;
    match &config.shape {
        Shape::Svg(path) => {
            let [record] = records.as_slice() else {
                bail!(
                    "--svg draws one record, and here are {}: name the files of one, or add --last 1",
                    records.len()
                );
            };
            fs::write(path, Timeline::of(record).svg())
                .with_context(|| format!("the picture cannot be written to {}", path.display()))?;
        }
        Shape::Text => print(records.iter().enumerate().map(|(number, record)| {
            let between = if number == 0 { "" } else { "\n\n" };
            format!("{between}{}", Timeline::of(record).text())
        }))?,
        Shape::Json => print(records.iter().map(|record| record.to_json() + "\n"))?,
    }
    Ok(ExitCode::from(u8::from(trouble)))
}

/// What was found in the paths.
struct Found {
    halves: Vec<Record>,
    /// Of capture files, whole already.
    captured: Vec<Record>,
    /// Also those of capture files that were not reset.
    all: bool,
    /// Most files of a directory.
    most_files: usize,
    troubles: Vec<String>,
    seen: HashSet<PathBuf>,
}

impl Found {
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

    /// Reads a file, by what it is.
    fn read(&mut self, path: &Path) {
        // One that was named twice is one.
        let same = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        if !self.seen.insert(same) {
            return;
        }
        // Another one may never end, or never begin: a FIFO waits for who writes. One that is not there has its error
        // below.
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
}

impl Found {
    fn read_capture(&mut self, path: &Path) {
        let records = match captured::records(path) {
            Ok(records) => records,
            Err(error) => {
                let text = format!("{:#}", anyhow::Error::from(error));
                return self.troubles.push(text);
            }
        };
        let connections = records.len();
        let before = self.captured.len();
        let wanted = |record: &Record| self.all || captured::is_reset(record);
        self.captured.extend(records.into_iter().filter(wanted));
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

/// The newest of the records' files in a directory, by name, and how many more there are; other files may lie there
/// too.
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
            // A recorder has just removed it.
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

/// Puts the halves of each connection together; in order of time.
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
            // Two of one side are of two connections, however near.
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

/// Whether the one in that lane has written the record.
fn tells_of(record: &Record, lane: Lane) -> bool {
    record.events.iter().any(|event| event.lane == lane)
}

impl Config {
    /// Those that were asked for.
    fn chosen(&self, mut records: Vec<Record>) -> anyhow::Result<Vec<Record>> {
        let all = records.len();
        if let Some(cause) = self.cause {
            records.retain(|record| record.verdict.cause == cause);
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
    fn of_too_many_files_the_newest_are_read_and_the_others_counted() {
        let dir = tempfile::tempdir().unwrap();
        let record = include_str!("../../witness/tests/records/lazy.proxy.json");
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
            let mut found = Found::new(false, most);
            found.look(dir.path());
            assert_eq!((found.halves.len(), found.troubles.len()), (read, troubles));
        }
        let mut found = Found::new(false, 1);
        found.look(dir.path());
        let text = ": the 1 newest records were read; 3 older ones were left out";
        assert!(found.troubles[0].ends_with(text), "{:?}", found.troubles);
    }
}
