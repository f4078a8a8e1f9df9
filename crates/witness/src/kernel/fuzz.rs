//! What holds for any bytes of a trace pipe, and any text of a format file.

use super::format::Format;
use super::ledger::Ledger;
use super::line::TraceLine;
use super::pipe::LineReader;

/// The lines are the same in whatever pieces they are read, and each RST gets one place among those of its connection.
pub(crate) fn trace(data: &[u8]) {
    let (mut whole, mut bytewise) = (Vec::new(), Vec::new());
    LineReader::default().take(data, &mut whole);
    let mut reader = LineReader::default();
    data.chunks(1)
        .for_each(|byte| reader.take(byte, &mut bytewise));
    // A line without an end is cut where a piece ends.
    if data.len() < 1024 {
        assert_eq!(whole, bytewise);
    }
    let (mut ledger, mut judged, mut resets) = (Ledger::default(), Vec::new(), 0);
    for line in whole {
        match line {
            Ok(TraceLine::Reset(event)) => {
                resets += 1;
                ledger.see(event, &mut judged);
            }
            Ok(_) => {}
            Err(bad) => assert!(bad.line.chars().count() <= 240),
        }
    }
    ledger.due(std::time::Duration::MAX, &mut judged);
    assert_eq!(judged.len(), resets);
}

/// A format that tells closes apart has reasons.
pub(crate) fn format(data: &[u8]) {
    let format = Format::parse(&String::from_utf8_lossy(data));
    assert!(format.has_reason() || !format.tells_closes_apart());
}
