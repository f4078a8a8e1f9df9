//! Records as JSON: of bounded length when they are written, and checked when they are read.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::record::{RECORD_VERSION, Record};

/// Most bytes of a record that is written.
pub(crate) const MAX_WRITTEN: usize = 256 * 1024;

/// Most bytes of a record that is read.
const MAX_READ: u64 = 1024 * 1024;

/// Most characters of what the client asked for; a request line may have 16 KiB.
const MAX_REQUEST: usize = 1024;

/// Why a text is not a record.
#[derive(Debug, thiserror::Error)]
pub enum BadRecord {
    /// The text is not JSON, or not the JSON of a record; the error tells line and column.
    #[error("not a record: {0}")]
    Json(#[from] serde_json::Error),
    /// The record was made by another version of the programs.
    #[error("a record of version {0}; this program reads version {RECORD_VERSION}")]
    Version(u64),
    /// The text is longer than any record.
    #[error("longer than {MAX_READ} bytes: not a record")]
    TooLong,
    /// The file cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A file that holds no record.
#[derive(Debug, thiserror::Error)]
#[error("{}: {bad}", path.display())]
pub struct BadRecordFile {
    /// The path of the file.
    pub path: PathBuf,
    /// Why the file holds no record.
    pub bad: BadRecord,
}

/// The version, which is read before the rest.
#[derive(Deserialize)]
struct Versioned {
    version: u64,
}

impl Record {
    /// A record from its JSON; its events come in order of time.
    ///
    /// # Errors
    /// The text is too long, is not a record, or is one of another version.
    pub fn from_json(text: &str) -> Result<Self, BadRecord> {
        if text.len() as u64 > MAX_READ {
            return Err(BadRecord::TooLong);
        }
        let Versioned { version } = serde_json::from_str(text)?;
        if version != u64::from(RECORD_VERSION) {
            return Err(BadRecord::Version(version));
        }
        let mut record: Self = serde_json::from_str(text)?;
        record.events.sort_by_key(|event| event.at_ns);
        Ok(record)
    }

    /// Reads a record from a file, at most 1 MiB of it.
    ///
    /// # Errors
    /// The file cannot be read, or is not a record.
    pub fn read(path: &Path) -> Result<Self, BadRecordFile> {
        let read = || {
            let mut text = String::new();
            let file = File::open(path)?;
            file.take(MAX_READ + 1).read_to_string(&mut text)?;
            Self::from_json(&text)
        };
        read().map_err(|bad| BadRecordFile {
            path: path.to_owned(),
            bad,
        })
    }

    /// The record as one line of JSON.
    pub fn to_json(&self) -> String {
        // It cannot fail: a record has only strings, numbers and addresses.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The record as one line of JSON of at most 256 KiB: if there are too many events, those in the middle are left
    /// out and counted.
    pub(crate) fn to_bounded_json(&self) -> String {
        let long_request = self.request.as_ref().is_some_and(|text| {
            // There are at least as many bytes as characters.
            text.len() > MAX_REQUEST
        });
        let json = self.to_json();
        if json.len() <= MAX_WRITTEN && !long_request {
            return json;
        }
        let mut record = self.clone();
        record.request = record
            .request
            .map(|text| text.chars().take(MAX_REQUEST).collect());
        let mut json = record.to_json();
        while json.len() > MAX_WRITTEN && !record.events.is_empty() {
            // So many would fit if all events had the same length; a tenth less is kept.
            let have = record.events.len();
            let keep = have * MAX_WRITTEN / json.len() * 9 / 10;
            record.leave_out(have - keep.min(have - 1));
            json = record.to_json();
        }
        json
    }

    /// Takes `count` events out. A quarter of the others stays before them and the rest after them, because the end of
    /// the connection tells more than its beginning.
    fn leave_out(&mut self, count: usize) {
        let first = (self.events.len() - count) / 4;
        self.events.drain(first..first + count);
        self.left_out = self.left_out.saturating_add(count as u64);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::evidence::{Event, Lane, What};
    use crate::records::lazy;

    #[test]
    fn a_record_read_from_its_own_json_is_the_same() {
        let record = lazy();
        assert_eq!(Record::from_json(&record.to_json()).unwrap(), record);
    }

    #[test]
    fn events_of_a_read_record_are_in_order_of_time() {
        let mut record = lazy();
        record.events.reverse();
        let read = Record::from_json(&record.to_json()).unwrap();
        assert!(read.events.is_sorted_by_key(|event| event.at_ns));
    }

    #[test]
    fn an_error_about_a_bad_record_names_file_line_and_column() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("broken.json");
        std::fs::write(&path, "{\"version\": 1,\n \"boot_id\": 7}").unwrap();
        let text = Record::read(&path).unwrap_err().to_string();
        for part in ["broken.json: not a record: ", "line 2 column 13"] {
            assert!(text.contains(part), "{text}");
        }
        let text = Record::read(&directory.path().join("none.json"));
        let text = text.unwrap_err().to_string();
        assert!(text.ends_with("No such file or directory (os error 2)"));
    }

    #[test]
    fn a_record_of_another_version_is_refused() {
        let text = lazy().to_json().replace("\"version\":1", "\"version\":2");
        assert_eq!(
            Record::from_json(&text).unwrap_err().to_string(),
            "a record of version 2; this program reads version 1"
        );
        let error = Record::from_json("{}").unwrap_err().to_string();
        assert!(error.contains("missing field `version`"), "{error}");
    }

    #[test]
    fn an_endless_file_is_no_record() {
        let error = Record::read(Path::new("/dev/zero")).unwrap_err();
        assert!(matches!(error.bad, BadRecord::TooLong), "{error}");
    }

    #[test]
    fn a_record_with_too_many_events_loses_those_in_the_middle() {
        let mut record = lazy();
        let (first, last) = (record.events[0].clone(), record.events.pop().unwrap());
        let at_ns = last.at_ns - 1;
        let note = |n: usize| Event {
            at_ns,
            lane: Lane::Proxy,
            what: What::Note {
                // The first notes are long, so that a share of the events is not the same share of the bytes.
                text: "x".repeat(if n < 200 { 2000 } else { 10 }),
            },
        };
        record.events.extend((0..4000).map(note));
        record.events.push(last.clone());
        record.request = Some("\u{1}".repeat(100_000));
        let count = record.events.len() as u64;
        let json = record.to_bounded_json();
        assert!(json.len() <= MAX_WRITTEN, "{}", json.len());
        let kept = Record::from_json(&json).unwrap();
        assert_eq!(kept.events.len() as u64 + kept.left_out, count);
        assert_eq!(kept.events.first(), Some(&first));
        assert_eq!(kept.events.last(), Some(&last));
        assert!(kept.events.len() > 100, "{}", kept.events.len());
    }

    #[test]
    fn a_single_event_that_is_too_long_is_left_out() {
        let mut record = lazy();
        record.events.truncate(1);
        record.events[0].what = What::Note {
            text: "x".repeat(2 * MAX_WRITTEN),
        };
        let kept = Record::from_json(&record.to_bounded_json()).unwrap();
        assert_eq!((kept.events.len(), kept.left_out), (0, 1));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "\\PC{0,300}") {
            let _ = Record::from_json(&text);
        }

        /// A record that is cut, doubled or overwritten somewhere is read as a record or an error; and any record
        /// that was read can be merged and written.
        #[test]
        fn no_broken_record_makes_the_reader_panic(
            at in 0.0..1.0,
            bytes in 0_usize..40,
            with in prop_oneof![
                "\\PC{0,9}",
                Just("18446744073709551615".to_owned()),
                Just("-1".to_owned()),
                Just("null".to_owned()),
                Just("1e400".to_owned()),
            ],
        ) {
            let good = lazy();
            let text = good.to_json();
            let at = (at * text.len() as f64) as usize;
            let end = (at + bytes).min(text.len());
            if let Ok(record) = Record::from_json(&format!("{}{with}{}", &text[..at], &text[end..])) {
                prop_assert!(record.to_bounded_json().len() <= MAX_WRITTEN);
                let _ = good.merge(record);
            }
        }

        /// Somebody else may have written any number into the record.
        #[test]
        fn no_number_in_a_record_makes_a_merge_panic(number in 0_usize..200, value in prop_oneof![Just(u64::MAX), Just(i64::MAX as u64), any::<u64>()]) {
            let text = lazy().to_json();
            let mut numbers = 0;
            let mut changed = String::new();
            let mut rest = text.as_str();
            // Numbers stand between a colon and a comma or brace.
            while let Some((before, after)) = rest.split_once(':') {
                changed += before;
                changed.push(':');
                let digits = after.len() - after.trim_start_matches(|c: char| c.is_ascii_digit()).len();
                rest = after;
                if digits > 0 && matches!(after.as_bytes().get(digits), Some(b',' | b'}')) {
                    if numbers == number {
                        changed += &value.to_string();
                        rest = &after[digits..];
                    }
                    numbers += 1;
                }
            }
            changed += rest;
            if let Ok(record) = Record::from_json(&changed) {
                let _ = lazy().merge(record.clone());
                let _ = record.merge(lazy());
            }
        }
    }
}
