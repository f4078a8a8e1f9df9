//! A record as a picture: who did what on one connection, in order of time.
//!
//! [`Timeline::text`] is for a terminal, [`Timeline::svg`] for a ticket; both draw the same lines. Proxy and upstream
//! are two vertical lines, the wire is between them; what client and proxy did stands to the left, what upstream and
//! kernel did to the right.

mod facts;
mod lines;
mod svg;
#[cfg(test)]
mod tests;
mod text;
mod words;
mod wrap;

use std::time::{Duration, SystemTime};

use rstlab_witness::{Lane, Record, Side};

use crate::printable::printable;

/// Most lines of a picture; of more the middle is left out.
const MOST_LINES: usize = 200;

/// Most characters of one text that others chose.
const MOST_CHARS: usize = 300;

/// A record, ready to be drawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeline {
    /// What was asked for, and between whom.
    title: [String; 2],
    lines: Vec<Line>,
    /// What it means, by what it is about.
    facts: Vec<(&'static str, String)>,
}

/// One line of the picture.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    /// Since the first event; whole microseconds, so that the pauses add up as they are printed.
    at: Duration,
    mark: Mark,
}

/// What stands on a line.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Mark {
    /// Words in a lane; `bad` if they tell of a failure.
    Words { lane: Lane, text: String, bad: bool },
    /// A packet, or some; `bad` if it is a RST.
    Arrow { from: Side, text: String, bad: bool },
    /// So many lines are not drawn.
    LeftOut(usize),
}

impl Timeline {
    /// Puts a record's events into lines, and its verdict into words.
    pub fn of(record: &Record) -> Self {
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
                printable(request, MOST_CHARS),
                format!("proxy {client} → upstream {server}, {when}"),
            ],
            lines: bounded(lines::of(&record.events)),
            facts: facts::of(record),
        }
    }

    /// Adds what there is to say of the picture itself.
    pub(crate) fn with_fact(mut self, about: &'static str, text: &str) -> Self {
        self.facts.push((about, printable(text, MOST_CHARS)));
        self
    }

    /// Each line with the pause before it; the first has none.
    fn paused(&self) -> impl Iterator<Item = (&Line, Option<Duration>)> {
        let before = self.lines.iter().map(|line| Some(line.at));
        let before = std::iter::once(None).chain(before);
        self.lines.iter().zip(before).map(|(line, before)| {
            let pause = before.map(|before| line.at.saturating_sub(before));
            (line, pause)
        })
    }
}

/// A quarter of the lines stays before the gap, the others after it, where the end is told.
fn bounded(mut lines: Vec<Line>) -> Vec<Line> {
    if lines.len() > MOST_LINES {
        let count = lines.len() - (MOST_LINES - 1);
        let first = MOST_LINES / 4;
        let at = lines[first].at;
        let mark = Mark::LeftOut(count);
        lines.splice(first..first + count, [Line { at, mark }]);
    }
    lines
}

/// Milliseconds, with microseconds behind the point; what takes more than eight letters in a larger unit.
fn millis(time: Duration) -> String {
    let micros = time.as_micros();
    let seconds = time.as_secs();
    match seconds {
        0..10 => format!("{}.{:03}", micros / 1000, micros % 1000),
        10..100_000 => format!("{seconds}.{}s", time.subsec_millis() / 100),
        _ => format!("{}d", seconds / (24 * 60 * 60)),
    }
}
