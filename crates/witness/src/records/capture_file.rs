//! Writes the packets of a record as a file, with the verdict as its comment.

use std::fmt::Write as _;

use super::record::Record;
use crate::evidence::Side;
use crate::packets::write_pcapng;
use crate::verdict::Verdict;

/// Most characters of a comment, because parts of it have no limit of their own: the kernel's word for a reason, and
/// the disagreement.
const MAX_COMMENT: usize = 1000;

impl Record {
    /// The packets as a pcapng file that Wireshark opens, with the verdict as comment; `None` if none were captured.
    /// Without `payload`, the file has the first 64 bytes of each segment's payload, and no credentials.
    ///
    /// At most 256 packets of 1,500 bytes; without `payload`, less than 100 KiB.
    pub fn pcapng(&self, payload: bool) -> Option<Vec<u8>> {
        let mut file = Vec::new();
        let packets = self.packets.as_ref()?;
        let packets = match payload {
            true => packets,
            false => &packets.without_payload(),
        };
        // A vector takes everything, and the comment is short.
        write_pcapng(&mut file, packets, &self.comment()).ok()?;
        Some(file)
    }

    fn comment(&self) -> String {
        let Verdict {
            cause,
            known,
            sent_by,
            reason,
            unread_bytes,
            disagreement,
        } = &self.verdict;
        let mut comment = format!("{cause}, {known}");
        // Writing to a String does not fail.
        if let Some(reason) = reason {
            let _ = write!(comment, " ({reason})");
        }
        let _ = write!(comment, ". {}", cause.sentence());
        if let Some(side) = sent_by {
            let (who, address) = match side {
                Side::Client => ("client", self.client),
                Side::Server => ("server", self.server),
            };
            let _ = write!(comment, " RST by the {who}, {address}.");
        }
        if let Some(unread) = unread_bytes {
            let _ = write!(comment, " Unread when the server closed: {unread} bytes.");
        }
        if let Some(text) = disagreement {
            let _ = write!(comment, " The evidence disagrees: {text}.");
        }
        comment.chars().take(MAX_COMMENT).collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::packets::packets_of_a_reset;
    use crate::records::lazy;

    #[test]
    fn a_file_of_packets_has_the_verdict_as_its_comment() {
        let mut record = lazy();
        assert_eq!(record.pcapng(false), None);
        record.packets = Some(packets_of_a_reset());
        record.verdict.disagreement = Some("x".repeat(100_000));
        let file = record.pcapng(false).unwrap();
        assert!(file.len() < 10_000, "{}", file.len());
        let text = String::from_utf8_lossy(&file);
        let comment = "data-after-close, proved (TCP_ABORT_ON_DATA). It had closed; then more bytes came from \
                       the peer. RST by the server, 127.0.0.1:8000.";
        // Once as the comment of the file, once as that of the packet.
        assert_eq!(text.matches(comment).count(), 2, "{text}");
    }
}
