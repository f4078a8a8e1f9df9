//! Writes the packets of one connection as a pcapng file.

use std::borrow::Cow;
use std::io::Write;

use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption, InterfaceTsResolution,
};
use pcap_file::pcapng::blocks::opt_common::CommonOption;
use pcap_file::pcapng::blocks::section_header::{SectionHeaderBlock, SectionHeaderOption};
use pcap_file::pcapng::{PcapNgWriteError, PcapNgWriter};
use pcap_file::{DataLink, Endianness};

use super::conversation::{Conversation, FIRST};

/// Writes `conversation` as a pcapng file that Wireshark opens, `comment` (at most 65,535 bytes) as the comment of
/// the file and of the RST that decided.
///
/// # Errors
/// `out` cannot be written to, or the comment is too long.
pub fn write_pcapng(
    out: impl Write,
    conversation: &Conversation,
    comment: &str,
) -> Result<(), PcapNgWriteError> {
    let section = SectionHeaderBlock {
        endianness: Endianness::native(),
        options: vec![
            SectionHeaderOption::Common(CommonOption::Comment(comment.into())),
            SectionHeaderOption::UserApplication("rstlab".into()),
        ],
        ..SectionHeaderBlock::default()
    };
    let mut writer = PcapNgWriter::with_section_header(out, section)?;
    let kept = conversation.packets().iter().map(|it| it.bytes().len());
    writer.write_pcapng_block(InterfaceDescriptionBlock {
        linktype: DataLink::RAW,
        snaplen: kept.max().unwrap_or(0) as u32,
        options: vec![InterfaceDescriptionOption::IfTsResol(
            InterfaceTsResolution::NANO,
        )],
    })?;
    let reset = conversation.deciding_reset();
    for (place, packet) in conversation.packets().iter().enumerate() {
        let mut comments = Vec::new();
        if place == FIRST && conversation.left_out() > 0 {
            comments.push(Cow::from(format!(
                "{} packets before this one were not kept",
                conversation.left_out()
            )));
        }
        if reset == Some(place) {
            comments.push(comment.into());
        }
        let options = comments
            .into_iter()
            .map(|text| EnhancedPacketOption::Common(CommonOption::Comment(text)));
        writer.write_pcapng_block(EnhancedPacketBlock {
            interface_id: 0,
            timestamp: packet.since_epoch(),
            original_len: packet.length(),
            data: packet.bytes().into(),
            options: options.collect(),
        })?;
    }
    Ok(())
}
