//! The two halves of a connection's record: which are there, and both as one.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use rstlab_witness::{Lane, Record};

/// A record that was made in these last seconds is fresh: the other program may be about to write its half. The queue of
/// a program that records a burst of 200 is empty after 8 seconds.
const FRESH_SECONDS: u64 = 10;

/// Which half is missing, and why it may be.
pub(super) fn missing(record: &Record) -> Option<String> {
    let missing = match [Lane::Proxy, Lane::Upstream].map(|lane| tells_of(record, lane)) {
        [true, false] => "upstream",
        [false, true] => "proxy",
        // A capture has neither.
        [true, true] | [false, false] => return None,
    };
    Some(if is_fresh(record) {
        format!(
            "the {missing}'s half is not written yet, or the {missing} keeps no records (--record)"
        )
    } else {
        format!(
            "the {missing}'s half is not among these records: the {missing} keeps none (--record), or dropped or removed it"
        )
    })
}

/// Whether the record was made of late, by this machine's clock.
pub(super) fn is_fresh(record: &Record) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.is_ok_and(|now| now.as_secs().abs_diff(record.unix_time) <= FRESH_SECONDS)
}

/// Merges the two halves of each connection; sorts the records by time.
pub(super) fn merged(mut halves: Vec<Record>) -> Vec<Record> {
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
pub(super) fn tells_of(record: &Record, lane: Lane) -> bool {
    record.events.iter().any(|event| event.lane == lane)
}
