//! Reads the TCP segments of a pcapng file, whoever wrote it.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use pcap_file::DataLink;
use pcap_file::pcapng::blocks::{
    ENHANCED_PACKET_BLOCK, PACKET_BLOCK, SECTION_HEADER_BLOCK, SIMPLE_PACKET_BLOCK,
};
use pcap_file::pcapng::{Block, PcapNgReadError, PcapNgReader, PcapNgState, RawBlock};

use super::bad_capture::BadCapture;
use super::capture_file::{CaptureFile, CaptureSorter};
use super::decode::{decode, ip_part};
use super::packet::Packet;

/// Largest file read, in bytes and in blocks, and the most interfaces that it may have: the reader keeps them all.
const MAX_BYTES: u64 = 64 * 1024 * 1024;
const MAX_BLOCKS: u64 = 1_000_000;
const MAX_INTERFACES: usize = 1000;

/// Largest block: four times the largest packet that tcpdump and Wireshark keep.
const MAX_BLOCK_BYTES: usize = 1024 * 1024;

/// How every file begins: with the kind of its first block, the section header.
const MAGIC: [u8; 4] = SECTION_HEADER_BLOCK.to_be_bytes();

/// How a file of the older format begins, in both byte orders, with times in microseconds or nanoseconds.
const PCAP_MAGIC: [[u8; 4]; 4] = [
    [0xa1, 0xb2, 0xc3, 0xd4],
    [0xd4, 0xc3, 0xb2, 0xa1],
    [0xa1, 0xb2, 0x3c, 0x4d],
    [0x4d, 0x3c, 0xb2, 0xa1],
];

/// The TCP segments in a pcapng file, whoever wrote it. Frames may be of Ethernet, of
/// `tcpdump -i any` (both kinds), of a BSD loopback, or bare IP; anything else in the file is passed over.
///
/// # Errors
/// The file cannot be read, is damaged or too large (64 MiB, 1,000,000 blocks).
pub fn read_pcapng(path: impl AsRef<Path>) -> Result<CaptureFile, BadCapture> {
    let path = path.as_ref();
    let file = File::open(path).map_err(|source| BadCapture::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    read(path, file)
}

pub(super) fn read(path: &Path, mut file: impl Read) -> Result<CaptureFile, BadCapture> {
    let unreadable = |source| BadCapture::Unreadable {
        path: path.to_owned(),
        source,
    };
    let mut magic = Vec::new();
    file.by_ref()
        .take(4)
        .read_to_end(&mut magic)
        .map_err(unreadable)?;
    if PCAP_MAGIC.iter().any(|pcap| magic == pcap) {
        let path = path.to_owned();
        return Err(BadCapture::Pcap { path });
    }
    if magic != MAGIC {
        let path = path.to_owned();
        return Err(BadCapture::NotPcapng { path });
    }
    let file = magic.as_slice().chain(file).take(MAX_BYTES + 1);
    let mut packets = CaptureSorter::default();
    let mut block = 1;
    let bad = |block, error| bad_block(path, block, error);
    let too_large = |block| BadCapture::TooLarge {
        path: path.to_owned(),
        block,
    };
    let mut reader =
        PcapNgReader::with_capacity(file, MAX_BLOCK_BYTES).map_err(|error| bad(block, error))?;
    loop {
        block += 1;
        let Some(next) = reader.next_raw_block() else {
            break;
        };
        let (raw, state) = match next {
            Ok(next) => next,
            Err(error) => {
                let full = reader.get_ref().limit() == 0;
                return Err(if full {
                    too_large(block)
                } else {
                    bad(block, error)
                });
            }
        };
        if let Some(packet) = packet(raw, state).map_err(|error| bad(block, error))? {
            packets.push(&packet);
        }
        if block > MAX_BLOCKS || state.interfaces().len() > MAX_INTERFACES {
            return Err(too_large(block));
        }
    }
    if reader.get_ref().limit() == 0 {
        return Err(too_large(block));
    }
    Ok(packets.finish())
}

/// The segment in a block, if there is one.
fn packet(raw: RawBlock<'_>, state: &PcapNgState) -> Result<Option<Packet>, PcapNgReadError> {
    if ![ENHANCED_PACKET_BLOCK, PACKET_BLOCK, SIMPLE_PACKET_BLOCK].contains(&raw.type_) {
        return Ok(None);
    }
    let (interface, time, length, frame) = match raw.try_into_block(state)? {
        Block::EnhancedPacket(it) => (it.interface_id, it.timestamp, it.original_len, it.data),
        Block::Packet(it) => (
            it.interface_id.into(),
            it.timestamp,
            it.original_len,
            it.data,
        ),
        Block::SimplePacket(it) => (0, Duration::ZERO, it.original_len, it.data),
        _ => return Ok(None),
    };
    let interface = state.interfaces().get(interface as usize);
    let link = interface.map_or(DataLink::NULL, |it| it.linktype);
    let Some(ip) = ip_part(link, &frame) else {
        return Ok(None);
    };
    let before = (frame.len() - ip.len()) as u32;
    Ok(decode(ip, length.saturating_sub(before), time, time))
}

fn bad_block(path: &Path, block: u64, error: PcapNgReadError) -> BadCapture {
    let path = path.to_owned();
    match error {
        PcapNgReadError::Io(source) if source.kind() == io::ErrorKind::UnexpectedEof => {
            BadCapture::CutOff { path, block }
        }
        PcapNgReadError::Io(source) => BadCapture::Unreadable { path, source },
        source => BadCapture::Garbage {
            path,
            block,
            source: source.into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use pcap_file::Endianness;
    use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketBlock;
    use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionBlock;
    use pcap_file::pcapng::blocks::simple_packet::SimplePacketBlock;
    use pcap_file::pcapng::blocks::unknown::UnknownBlock;
    use pcap_file::pcapng::{PcapNgBlock as _, PcapNgWriter};
    use proptest::prelude::*;

    use super::super::fixture::{conversations, to_client, to_server};
    use super::super::write::write_pcapng;
    use super::*;

    fn read_bytes(bytes: &[u8]) -> Result<Vec<Packet>, BadCapture> {
        let file = read(Path::new("a.pcapng"), bytes)?;
        Ok(file.packets().collect())
    }

    fn example() -> (Vec<Packet>, Vec<u8>) {
        let packets = vec![
            to_server(1, "[S]", [99, 0], 0),
            to_client(2, "[S.]", [499, 100], 0),
            to_server(3, "[P.]", [100, 500], 64),
            to_client(4, "[R.]", [500, 100], 0),
        ];
        let mut file = Vec::new();
        write_pcapng(&mut file, &conversations(packets.clone())[0], "unread").unwrap();
        (packets, file)
    }

    #[test]
    fn a_file_that_was_written_reads_back_the_same() {
        let (packets, file) = example();
        assert_eq!(read_bytes(&file).unwrap(), packets);
    }

    #[test]
    fn files_of_other_programs_are_read_and_blocks_without_tcp_are_passed_over() {
        let (packets, _) = example();
        for endianness in [Endianness::Big, Endianness::Little] {
            let mut writer = PcapNgWriter::with_endianness(Vec::new(), endianness).unwrap();
            let mut write = |block: Block<'_>| {
                writer.write_block(&block).unwrap();
            };
            // Times in microseconds, unless the interface says otherwise.
            for link in [DataLink::ETHERNET, DataLink::PPP] {
                write(InterfaceDescriptionBlock::new(link, 0).into_block());
            }
            write(UnknownBlock::new(77, 0, b"what").into_block());
            let ethernet = [&[0; 12][..], &[8, 0], packets[2].bytes()].concat();
            let packet = |interface_id, data: &[u8]| EnhancedPacketBlock {
                interface_id,
                timestamp: packets[2].since_epoch(),
                original_len: packets[2].length() + 14,
                data: data.to_vec().into(),
                options: Vec::new(),
            };
            write(packet(0, &ethernet).into_block());
            write(packet(0, b"no frame").into_block());
            write(packet(1, &ethernet).into_block());
            let whole = [&[0; 12][..], &[8, 0], packets[0].bytes()].concat();
            let simple = SimplePacketBlock {
                original_len: whole.len() as u32,
                data: whole.into(),
            };
            write(simple.into_block());
            let read = read_bytes(&writer.into_inner()).unwrap();
            assert_eq!(read.len(), 2);
            assert_eq!(read[0], packets[2]);
            assert_eq!(
                (read[1].flags, read[1].at),
                (packets[0].flags, Duration::ZERO)
            );
        }
    }

    #[test]
    fn errors_about_a_capture_name_the_file_and_the_block() {
        let (_, file) = example();
        let told = |bytes: &[u8]| read_bytes(bytes).unwrap_err().to_string();
        assert!(told(&file[..4]).contains("a.pcapng ends in the middle of block 1"));
        let cut = told(&file[..file.len() - 1]);
        assert!(
            cut.contains("a.pcapng ends in the middle of block 6"),
            "{cut}"
        );
        let mut damaged = file.clone();
        let last = damaged.len() - 1;
        damaged[last] ^= 1;
        let damaged = told(&damaged);
        assert!(
            damaged.contains("a.pcapng is no sound pcapng file, at block 6"),
            "{damaged}"
        );
        for other in [&b""[..], b"text", b"this is not a capture"] {
            assert_eq!(told(other), "a.pcapng is no pcapng file");
        }
        assert!(told(&[0xd4, 0xc3, 0xb2, 0xa1, 2, 0]).contains("editcap -F pcapng"));
        let missing = read_pcapng("/nowhere/a.pcapng").unwrap_err().to_string();
        assert!(
            missing.contains("cannot read /nowhere/a.pcapng"),
            "{missing}"
        );
    }

    #[test]
    fn a_file_without_an_end_is_read_up_to_a_limit() {
        let large = block(77, &vec![0; 512 * 1024 - 12]);
        let interface = block(1, &[101, 0].map(u32::to_ne_bytes).concat());
        let empty = block(77, &[]);
        let (_, file) = example();
        let begun = |max: u64, block: &[u8]| (max - file.len() as u64) / block.len() as u64;
        let full = 6 + begun(MAX_BYTES, &large) + 1;
        for (block, limit) in [(large, full), (interface, 1006), (empty, 1_000_001)] {
            let endless = file.as_slice().chain(Endless { block, at: 0 });
            let error = read(Path::new("a"), endless).unwrap_err();
            assert!(
                matches!(error, BadCapture::TooLarge { block, .. } if block == limit),
                "{error:?} {limit}"
            );
        }
    }

    fn block(kind: u32, body: &[u8]) -> Vec<u8> {
        let length = (body.len() as u32 + 12).to_ne_bytes();
        [&kind.to_ne_bytes(), &length, body, &length].concat()
    }

    /// The same block again and again.
    struct Endless {
        block: Vec<u8>,
        at: usize,
    }

    impl Read for Endless {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            let read = (&self.block[self.at..]).read(buf)?;
            self.at = (self.at + read) % self.block.len();
            Ok(read)
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_of_captures_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = read_bytes(&bytes);
        }

        #[test]
        fn no_damage_to_a_capture_makes_the_reader_panic(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
            cut in any::<prop::sample::Index>(),
        ) {
            let (_, mut file) = example();
            for (place, byte) in changes {
                let place = place.index(file.len());
                file[place] = byte;
            }
            file.truncate(cut.index(file.len() * 2));
            if let Ok(packets) = read_bytes(&file) {
                for conversation in conversations(packets) {
                    conversation.ending();
                    let _ = write_pcapng(Vec::new(), &conversation, "");
                }
            }
        }

        /// The frame of the block is sound, its content is anything.
        #[test]
        fn no_block_makes_the_reader_of_captures_panic(
            kind in prop::sample::select(vec![1_u32, 2, 3, 4, 5, 6, 9, 0xbad, 0x4000_0bad, 0x0a0d_0d0a]),
            mut body in prop::collection::vec(any::<u8>(), 0..80),
            small in any::<bool>(),
        ) {
            let (_, mut file) = example();
            body.resize(body.len().next_multiple_of(4), 0);
            if small {
                for byte in body.iter_mut().skip(1) {
                    *byte &= 0x8f;
                }
            }
            file.extend(block(kind, &body));
            let (_, again) = example();
            // Without the header of its section, the rest belongs to the damaged section.
            file.extend(&again[again.len() - 100..]);
            let _ = read_bytes(&file);
        }
    }
}
