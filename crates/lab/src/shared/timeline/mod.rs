//! A record as a picture: who did what on one connection, in order of time.
//!
//! [`Timeline::text`] is for a terminal, [`Timeline::svg`] for a ticket; both draw the same lines. Proxy and upstream
//! are two vertical lines with the wire between them. Client and proxy have the space to the left, upstream and kernel
//! the space to the right.

mod facts;
mod lines;
mod svg;
#[cfg(test)]
mod tests;
mod text;
mod words;

use std::time::{Duration, SystemTime};

use rstlab_witness::{Lane, Record, Side};

use crate::shared::color::Tone;
use crate::shared::printable::printable;

/// The most lines of a timeline. A longer one has a gap in its middle.
const MAX_LINES: usize = 200;

/// The most characters of a text of unknown origin, such as a path or a process's name.
const MAX_CHARS: usize = 300;

/// Tones of a timeline's words on a terminal.
pub(crate) const TIMELINE_TONES: [(&str, Tone); 4] = [
    ("RST", Tone::Bad),
    ("ECONNRESET", Tone::Bad),
    ("EPIPE", Tone::Bad),
    ("harmless", Tone::Good),
];

/// A record, ready to be drawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Timeline {
    /// The request, and the two ends of the connection.
    title: [String; 2],
    lines: Vec<TimelineLine>,
    /// What the record means: a keyword and a sentence each.
    facts: Vec<(&'static str, String)>,
}

/// One line of the picture.
#[derive(Debug, Clone, PartialEq, Eq)]
struct TimelineLine {
    /// Since the first event, in whole microseconds, so that the printed pauses add up.
    at: Duration,
    mark: Mark,
}

/// What stands on a line.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Mark {
    /// Words in a lane, `bad` if they are about a failure.
    Words { lane: Lane, text: String, bad: bool },
    /// One or more packets, `bad` if it is a RST.
    Arrow { from: Side, text: String, bad: bool },
    /// This many lines are not drawn.
    LeftOut(usize),
}

impl Timeline {
    /// Puts a record's events into lines, and its verdict into words.
    pub(crate) fn of(record: &Record) -> Self {
        let (server, client) = (record.server, record.client);
        let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(record.unix_time));
        // humantime knows the years up to 9999.
        let known = time.filter(|_| record.unix_time < 253_402_300_800);
        let when = known.map_or("at an unknown time".to_owned(), |time| {
            humantime::format_rfc3339_seconds(time).to_string()
        });
        let request = record.request.as_deref().unwrap_or("a connection");
        Self {
            title: [
                printable(request, MAX_CHARS),
                format!("proxy {client} → upstream {server}, {when}"),
            ],
            lines: bounded(lines::of(&record.events)),
            facts: facts::of(record),
        }
    }

    /// Adds a fact about the picture itself, such as missing evidence.
    pub(crate) fn with_fact(mut self, about: &'static str, text: &str) -> Self {
        self.facts.push((about, printable(text, MAX_CHARS)));
        self
    }

    /// Each line with the pause before it; the first line has no pause.
    fn paused(&self) -> impl Iterator<Item = (&TimelineLine, Option<Duration>)> {
        let before = self.lines.iter().map(|line| Some(line.at));
        let before = std::iter::once(None).chain(before);
        self.lines.iter().zip(before).map(|(line, before)| {
            let pause = before.map(|before| line.at.saturating_sub(before));
            (line, pause)
        })
    }
}

/// Leaves lines out if there are too many. A quarter stays before the gap, the others after it, because they show how
/// the connection ended.
fn bounded(mut lines: Vec<TimelineLine>) -> Vec<TimelineLine> {
    if lines.len() > MAX_LINES {
        let count = lines.len() - (MAX_LINES - 1);
        let first = MAX_LINES / 4;
        let at = lines[first].at;
        let mark = Mark::LeftOut(count);
        lines.splice(first..first + count, [TimelineLine { at, mark }]);
    }
    lines
}

/// Milliseconds with three decimals; ten seconds and more in a larger unit, so that eight letters are enough.
fn millis(time: Duration) -> String {
    let micros = time.as_micros();
    let seconds = time.as_secs();
    match seconds {
        0..10 => format!("{}.{:03}", micros / 1000, micros % 1000),
        10..100_000 => format!("{seconds}.{}s", time.subsec_millis() / 100),
        _ => format!("{}d", seconds / (24 * 60 * 60)),
    }
}
