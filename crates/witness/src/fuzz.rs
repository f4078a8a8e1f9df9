//! What holds for any bytes that a file, a peer or the kernel gives: functions for a fuzzer, each of which panics if it
//! does not hold.

use crate::evidence::Counters;
use crate::{kernel, packets, records};

/// The name of a function, and the function.
pub type FuzzTarget = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: &[FuzzTarget] = &[
    ("frame", packets::fuzz::frame),
    ("capture", packets::fuzz::capture),
    ("trace", kernel::fuzz::trace),
    ("format", kernel::fuzz::format),
    ("counters", counters),
    ("record", records::fuzz::record),
    ("ends", records::fuzz::ends),
];

/// The text, cut into two files at its first NUL, has every counter or an error that names a file.
fn counters(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (netstat, snmp) = text.split_once('\0').unwrap_or((&text, &text));
    if let Err(error) = Counters::parse(netstat, snmp) {
        assert!(error.to_string().starts_with("/proc/net/"), "{error}");
    }
}

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    #[test]
    fn what_holds_for_any_bytes_holds_for_the_seeds() {
        super::replay::replay(super::TARGETS);
    }
}
