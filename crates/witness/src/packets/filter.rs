//! The filter (BPF) by which the kernel gives a packet socket only the segments of the watched ports.

use socket2::SockFilter;

use super::packet::Snap;

/// Opcodes (`linux/bpf_common.h`): class, size or operation, and mode or operand in one.
const LOAD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const LOAD_HALF_INDEXED: u16 = 0x48;
const LOAD_BYTE: u16 = 0x30;
const LOAD_BYTE_INDEXED: u16 = 0x50;
const LOAD_X_HEADER_LENGTH: u16 = 0xb1;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_SET: u16 = 0x45;
const RETURN: u16 = 0x06;

/// Where to load what the kernel knows of a packet beside its bytes (`SKF_AD_OFF` in `linux/filter.h`).
const PROTOCOL: u32 = 0xffff_f000;
const PACKET_TYPE: u32 = 0xffff_f000 + 4;
const HARDWARE: u32 = 0xffff_f000 + 28;

const ARPHRD_LOOPBACK: u32 = 772;
const PACKET_OUTGOING: u32 = 4;
const ETH_P_IP: u32 = 0x0800;
const ETH_P_IPV6: u32 = 0x86dd;
const TCP: u32 = 6;
/// Where the flags stand in a TCP header (RFC 9293 §3.1), and the one of a RST.
const FLAGS: u32 = 13;
const RST: u32 = 0x04;

/// Extension headers of IPv6: hop-by-hop options, routing, fragment, destination options.
const EXTENSIONS: [u32; 4] = [0, 43, 44, 60];

/// A filter that lets no packet through.
pub(super) fn nothing() -> [SockFilter; 1] {
    [SockFilter::new(RETURN, 0, 0, 0)]
}

/// Most ports that are asked for one by one: a jump reaches 255 instructions, and a port takes four.
const MAX_PORTS: usize = 32;

/// A filter that lets TCP segments from or to `ports` through, and IPv6 packets with extension headers, whose ports a
/// filter cannot find. If the list is empty or very long, it means all ports. With `resets_only`, of all TCP segments
/// only RSTs pass. Byte 0 is the first one of the IP header. Only the beginning of each packet passes.
///
/// On loopback a packet is seen twice, going out and coming in: only the latter passes.
pub(super) fn segments_of(ports: &[u16], resets_only: bool, snap: Snap) -> Vec<SockFilter> {
    let ports = if ports.len() > MAX_PORTS { &[] } else { ports };
    let keep = snap.bytes() as u32;
    let mut program = Program::default();
    program.load(LOAD, HARDWARE);
    program.unless(ARPHRD_LOOPBACK, "protocol");
    program.load(LOAD, PACKET_TYPE);
    program.when(PACKET_OUTGOING, "drop");

    program.label("protocol");
    program.load(LOAD, PROTOCOL);
    program.when(ETH_P_IPV6, "ipv6");
    program.unless(ETH_P_IP, "drop");
    program.load(LOAD_BYTE, 9);
    program.unless(TCP, "drop");
    // The ports are in the first fragment only.
    program.load(LOAD_HALF, 6);
    program.when_any_bit(0x1fff, "drop");
    program.load(LOAD_X_HEADER_LENGTH, 0);
    if resets_only {
        program.load(LOAD_BYTE_INDEXED, FLAGS);
        program.unless_any_bit(RST, "drop");
    }
    program.one_of(ports, LOAD_HALF_INDEXED, 0, keep);

    program.label("ipv6");
    program.load(LOAD_BYTE, 6);
    for extension in EXTENSIONS {
        program.when(extension, "keep");
    }
    program.unless(TCP, "drop");
    if resets_only {
        program.load(LOAD_BYTE, 40 + FLAGS);
        program.unless_any_bit(RST, "drop");
    }
    program.one_of(ports, LOAD_HALF, 40, keep);

    program.label("keep");
    program.give(keep);
    program.label("drop");
    program.give(0);
    program.assemble()
}

/// Instructions whose jumps name their targets.
#[derive(Default)]
struct Program {
    instructions: Vec<Instruction>,
    labels: Vec<(&'static str, usize)>,
}

struct Instruction {
    code: u16,
    operand: u32,
    /// Where the program goes on if the comparison holds, and if it does not; `None` is the next instruction.
    jumps: [Option<&'static str>; 2],
}

impl Program {
    fn add(&mut self, code: u16, operand: u32, jumps: [Option<&'static str>; 2]) {
        self.instructions.push(Instruction {
            code,
            operand,
            jumps,
        });
    }

    fn load(&mut self, code: u16, from: u32) {
        self.add(code, from, [None, None]);
    }

    fn when(&mut self, equal: u32, target: &'static str) {
        self.add(JUMP_EQUAL, equal, [Some(target), None]);
    }

    fn unless(&mut self, equal: u32, target: &'static str) {
        self.add(JUMP_EQUAL, equal, [None, Some(target)]);
    }

    /// Goes on at `keep` if one of the two ports from `place` on is among `ports`; else drops the packet. If `ports` is
    /// empty, `bytes` of the packet pass.
    fn one_of(&mut self, ports: &[u16], code: u16, place: u32, bytes: u32) {
        if ports.is_empty() {
            self.give(bytes);
            return;
        }
        for place in [place, place + 2] {
            self.load(code, place);
            for port in ports {
                self.when(u32::from(*port), "keep");
            }
        }
        self.give(0);
    }

    fn when_any_bit(&mut self, bits: u32, target: &'static str) {
        self.add(JUMP_SET, bits, [Some(target), None]);
    }

    fn unless_any_bit(&mut self, bits: u32, target: &'static str) {
        self.add(JUMP_SET, bits, [None, Some(target)]);
    }

    fn give(&mut self, bytes: u32) {
        self.add(RETURN, bytes, [None, None]);
    }

    fn label(&mut self, name: &'static str) {
        self.labels.push((name, self.instructions.len()));
    }

    fn assemble(&self) -> Vec<SockFilter> {
        let offset = |from: usize, target: Option<&str>| {
            let place =
                target.and_then(|target| self.labels.iter().find(|(name, _)| *name == target));
            place.map_or(0, |(_, place)| (place - from - 1) as u8)
        };
        let instructions = self.instructions.iter().enumerate();
        let words = instructions.map(|(at, it)| {
            let [then, otherwise] = it.jumps.map(|target| offset(at, target));
            SockFilter::new(it.code, then, otherwise, it.operand)
        });
        words.collect()
    }
}
