//! Finds the TCP segment in a frame.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use etherparse::{EtherType, IpNumber, LaxIpSlice, LaxSlicedPacket, TcpHeaderSlice};
use pcap_file::DataLink;

use super::packet::{Flags, Frame, Packet};
use crate::evidence::canonical;

/// Lengths of the headers of `tcpdump -i any`, and of a BSD loopback.
const SLL_BYTES: usize = 16;
const SLL2_BYTES: usize = 20;
const NULL_BYTES: usize = 4;

/// The payload of a frame; `None` if the link is of a kind that is not read, or the frame is too short. [`decode`]
/// finds out whether the payload is IP.
pub(super) fn ip_part(link: DataLink, frame: &[u8]) -> Option<&[u8]> {
    let below_vlan = |ether_type: &[u8], rest| {
        let ether_type = EtherType(u16::from_be_bytes(ether_type.try_into().ok()?));
        let sliced = LaxSlicedPacket::from_ether_type(ether_type, rest);
        Some(sliced.ether_payload()?.payload)
    };
    match link {
        DataLink::RAW | DataLink::IPV4 | DataLink::IPV6 => Some(frame),
        DataLink::ETHERNET => {
            let sliced = LaxSlicedPacket::from_ethernet(frame).ok()?;
            Some(sliced.ether_payload()?.payload)
        }
        DataLink::LINUX_SLL => {
            let (header, rest) = frame.split_at_checked(SLL_BYTES)?;
            below_vlan(&header[14..], rest)
        }
        DataLink::LINUX_SLL2 => {
            let (header, rest) = frame.split_at_checked(SLL2_BYTES)?;
            below_vlan(&header[..2], rest)
        }
        DataLink::NULL | DataLink::LOOP => frame.get(NULL_BYTES..),
        _ => None,
    }
}

/// The TCP segment in an IP packet, of which `packet` is the beginning, and `length` the length that the capture tells;
/// `None` if there is no such segment, or its headers are not complete.
pub(super) fn decode(packet: &[u8], length: u32, at: Duration, wall: Duration) -> Option<Packet> {
    let (ip, _) = LaxIpSlice::from_slice(packet).ok()?;
    let payload = ip.payload();
    if payload.ip_number != IpNumber::TCP || payload.fragmented {
        return None;
    }
    let tcp = TcpHeaderSlice::from_slice(payload.payload).ok()?;
    let (length, ip_bytes) = match &ip {
        LaxIpSlice::Ipv4(ip) => {
            let header = ip.header();
            let before =
                header.slice().len() + ip.extensions().auth.map_or(0, |auth| auth.slice().len());
            (told(header.total_len().into(), length), before)
        }
        LaxIpSlice::Ipv6(ip) => {
            let header = ip.header();
            let before = header.slice().len() + ip.extensions().slice().len();
            let after = u32::from(header.payload_length());
            let total = if after == 0 {
                0
            } else {
                after + header.slice().len() as u32
            };
            (told(total, length), before)
        }
    };
    let payload_bytes = length.checked_sub((ip_bytes + tcp.slice().len()) as u32)?;
    // Without the padding of a short frame.
    let packet = &packet[..packet.len().min(length as usize)];
    let address = |ip: IpAddr, port| canonical(SocketAddr::new(ip, port));
    Some(Packet {
        at,
        from: address(ip.source_addr(), tcp.source_port()),
        to: address(ip.destination_addr(), tcp.destination_port()),
        seq: tcp.sequence_number(),
        ack: tcp.ack().then(|| tcp.acknowledgment_number()),
        flags: Flags(tcp.slice()[13]),
        payload_bytes,
        window: tcp.window_size(),
        frame: Frame::new(packet, length, wall),
    })
}

/// The length in the IP header; the captured length if the header says 0. The header says 0 if the packet is too large
/// for the field: a jumbogram (RFC 2675), or a packet that the kernel or the network card has yet to cut (BIG TCP).
fn told(in_header: u32, captured: u32) -> u32 {
    match in_header {
        0 => captured,
        told => told,
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    use super::*;

    const NOON: Duration = Duration::from_secs(12 * 3600);

    fn ipv4() -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
        PacketBuilder::ipv4([127, 0, 0, 1], [127, 0, 0, 2], 64)
    }

    fn data(
        builder: etherparse::PacketBuilderStep<etherparse::IpHeaders>,
        payload: usize,
    ) -> Vec<u8> {
        let mut bytes = Vec::new();
        let tcp = builder.tcp(8000, 4000, 7, 512).ack(9).psh();
        tcp.write(&mut bytes, &vec![b'x'; payload]).unwrap();
        bytes
    }

    fn read(packet: &[u8], length: usize) -> Option<Packet> {
        decode(packet, length as u32, NOON, NOON)
    }

    #[test]
    fn a_segment_is_read_in_full_though_only_its_beginning_was_captured() {
        let bytes = data(ipv4(), 65_000);
        for kept in [40, 128, bytes.len()] {
            let packet = read(&bytes[..kept], kept).unwrap();
            assert_eq!(
                (packet.from, packet.to),
                (
                    "127.0.0.1:8000".parse().unwrap(),
                    "127.0.0.2:4000".parse().unwrap()
                )
            );
            assert_eq!((packet.seq, packet.ack, packet.window), (7, Some(9), 512));
            assert_eq!(
                (packet.flags.to_string().as_str(), packet.payload_bytes),
                ("[P.]", 65_000)
            );
            assert_eq!(
                (packet.length(), packet.bytes()),
                (65_040, &bytes[..kept.min(1500)])
            );
        }
        assert_eq!(read(&bytes[..39], 39), None);
    }

    /// The kernel leaves the length 0 where it does not fit (`iph_set_totlen`, `ipv6_gso_segment`).
    #[test]
    fn a_packet_too_large_for_its_length_field_has_the_captured_length() {
        let mut bytes = data(ipv4(), 100);
        bytes[2..4].fill(0);
        assert_eq!(read(&bytes, 180_040).unwrap().payload_bytes, 180_000);
        let mut bytes = data(PacketBuilder::ipv6([1; 16], [2; 16], 64), 100);
        assert_eq!(read(&bytes, bytes.len()).unwrap().payload_bytes, 100);
        bytes[4..6].fill(0);
        assert_eq!(read(&bytes, 180_060).unwrap().payload_bytes, 180_000);
    }

    #[test]
    fn options_and_extension_headers_are_not_payload() {
        let mut options = data(ipv4(), 3);
        options[0] = 0x46;
        options[3] += 4;
        options.splice(20..20, [1, 1, 1, 0]);
        let mut hop_by_hop = data(PacketBuilder::ipv6([1; 16], [2; 16], 64), 3);
        hop_by_hop[5] += 8;
        hop_by_hop[6] = 0;
        hop_by_hop.splice(40..40, [6, 0, 1, 4, 0, 0, 0, 0]);
        for bytes in [options, hop_by_hop] {
            let packet = read(&bytes, bytes.len()).unwrap();
            assert_eq!((packet.seq, packet.payload_bytes), (7, 3));
            assert_eq!(packet.length() as usize, bytes.len());
        }
    }

    #[test]
    fn padding_is_not_payload_and_a_packet_with_too_short_a_length_is_refused() {
        let mut bytes = data(ipv4(), 0);
        bytes.extend([0; 6]);
        let packet = read(&bytes, bytes.len()).unwrap();
        assert_eq!((packet.payload_bytes, packet.bytes().len()), (0, 40));
        bytes[3] = 39;
        assert_eq!(read(&bytes, bytes.len()), None);
    }

    #[test]
    fn the_packet_is_found_behind_each_kind_of_link() {
        let packet = data(ipv4(), 3);
        let after = |header: &[u8]| [header, &packet].concat();
        let ethernet = [0; 12];
        let frames = [
            (DataLink::RAW, after(&[])),
            (DataLink::IPV4, after(&[])),
            (DataLink::NULL, after(&[2, 0, 0, 0])),
            (
                DataLink::ETHERNET,
                after(&[&ethernet[..], &[8, 0]].concat()),
            ),
            (
                DataLink::ETHERNET,
                after(&[&ethernet[..], &[0x81, 0, 0, 5, 8, 0]].concat()),
            ),
            (
                DataLink::ETHERNET,
                after(&[&ethernet[..], &[0x88, 0xa8, 0, 5, 0x81, 0, 0, 6, 8, 0]].concat()),
            ),
            (
                DataLink::LINUX_SLL,
                after(&[&[0; 14][..], &[8, 0]].concat()),
            ),
            (
                DataLink::LINUX_SLL2,
                after(&[&[8, 0][..], &[0; 18]].concat()),
            ),
        ];
        for (link, frame) in frames {
            assert_eq!(ip_part(link, &frame), Some(&packet[..]), "{link:?}");
        }
        assert_eq!(ip_part(DataLink::PPP, &packet), None);
    }

    proptest! {
        #[test]
        fn no_frame_makes_the_decoder_panic(
            link in 0_u32..300,
            length: u32,
            first in prop::sample::select(vec![0_u8, 0x45, 0x4f, 0x60]),
            mut frame in prop::collection::vec(any::<u8>(), 1..200),
        ) {
            frame[0] = first;
            let packet = ip_part(link.into(), &frame);
            if let Some(packet) = packet.and_then(|it| decode(it, length, NOON, NOON)) {
                prop_assert!(packet.bytes().len() <= packet.length() as usize);
                prop_assert!(packet.payload_bytes < packet.length());
            }
        }

        #[test]
        fn no_change_to_a_packet_makes_the_decoder_panic(at in 0_usize..70, byte: u8, kept in 0_usize..140) {
            for mut bytes in [data(ipv4(), 30), data(PacketBuilder::ipv6([1; 16], [2; 16], 64), 30)] {
                let at = at.min(bytes.len() - 1);
                bytes[at] = byte;
                bytes.truncate(kept);
                let _ = read(&bytes, bytes.len());
            }
        }
    }
}
