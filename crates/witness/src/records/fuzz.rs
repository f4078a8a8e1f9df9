//! What holds for any text of a record, and any bytes of a file of ends.

use std::path::Path;

use super::ends::Ends;
use super::record::Record;
use super::stored::MAX_WRITTEN;
use crate::boot::BOOT_ID;

/// A record that is read is written within its bound and reads back with the same verdict; it can be merged with
/// itself, and its packets can be written.
pub(crate) fn record(data: &[u8]) {
    let Ok(record) = Record::from_json(&String::from_utf8_lossy(data)) else {
        return;
    };
    let json = record.to_bounded_json();
    assert!(json.len() <= MAX_WRITTEN);
    let again = Record::from_json(&json).expect("it was just written");
    assert_eq!(again.verdict, record.verdict);
    for payload in [false, true] {
        record.pcapng(payload);
    }
    let _ = record.clone().merge(again);
}

/// The ends are the same in whatever pieces the lines are read, and memory is bounded. `BOOT` stands for the boot of
/// this machine: lines of another one are passed over.
pub(crate) fn ends(data: &[u8]) {
    let text = String::from_utf8_lossy(data).replace("BOOT", &BOOT_ID);
    let nowhere = || Ends::of(Path::new("/nowhere"));
    let (mut whole, mut bytewise) = (nowhere(), nowhere());
    whole.take(text.as_bytes());
    for byte in text.as_bytes().chunks(1) {
        bytewise.take(byte);
        assert!(bytewise.is_bounded());
    }
    assert_eq!(whole.known(), bytewise.known());
}
