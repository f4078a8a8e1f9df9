//! What holds for the bytes of any frame and any capture file.

use std::path::Path;
use std::time::Duration;

use super::decode::{decode, ip_part};
use super::packet::Packet;
use super::read::read;
use super::store::Store;
use super::write::write_pcapng;

/// Memory of the store of packets, so small that it has to forget.
const STORE_BYTES: usize = 4096;

/// Two bytes are the kind of link, the next two are the length that the capture tells, the others are the frame. No
/// more is kept of a segment than there is.
pub(crate) fn frame(data: &[u8]) {
    let Some((&[link @ .., high, low], frame)) = data.split_first_chunk::<4>() else {
        return;
    };
    let link = u32::from(u16::from_be_bytes(link));
    let length = u32::from(u16::from_be_bytes([high, low]));
    let Some(ip) = ip_part(link.into(), frame) else {
        return;
    };
    if let Some(packet) = decode(ip, length, Duration::ZERO, Duration::ZERO) {
        assert!(packet.bytes().len() <= ip.len());
        assert!(packet.bytes().len() <= packet.length() as usize);
        assert!(packet.payload_bytes < packet.length());
        assert!(packet.payload().len() <= packet.payload_bytes as usize);
    }
}

/// A capture that is read can be judged and written, and what was written reads back with the same headers. The store
/// keeps within its memory.
pub(crate) fn capture(data: &[u8]) {
    let Ok(file) = read(Path::new("a.pcapng"), data) else {
        return;
    };
    let mut store = Store::new(STORE_BYTES);
    let mut count = 0;
    for packet in file.packets() {
        store.push(packet);
        assert!(store.bytes() <= STORE_BYTES);
        count += 1;
    }
    // The smallest block with a segment in it.
    assert!(count <= data.len() as u64 / 64);
    let kept = file
        .conversations()
        .map(|it| it.packets().len() as u64 + it.left_out());
    assert_eq!(kept.sum::<u64>(), count);
    for conversation in file.conversations() {
        conversation.ending();
        let mut file = Vec::new();
        let written = write_pcapng(&mut file, &conversation, "comment");
        let is_late = |it: &Packet| u64::try_from(it.since_epoch().as_nanos()).is_err();
        if conversation.packets().iter().any(is_late) {
            assert!(written.is_err(), "nanoseconds of 64 bits end in 2554");
            continue;
        }
        written.expect("a vector takes everything");
        let again = read(Path::new("b.pcapng"), &file[..]).expect("it was just written");
        let headers = |it: &Packet| (it.from, it.to, it.seq, it.ack, it.flags, it.payload_bytes);
        let written = conversation.packets().iter().map(headers);
        assert!(again.packets().map(|it| headers(&it)).eq(written));
    }
}
