//! The ring of a packet socket (`PACKET_MMAP`, packet(7)): memory into which the kernel copies the beginnings of
//! packets (`tpacket_rcv`), frame by frame, and from which we take them. The ring is of version 2, in which a packet can
//! be seen as soon as the packet has passed; version 3 gathers packets for a while.

use std::ffi::c_int;
use std::io;
use std::mem::offset_of;
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use libc::{socklen_t, tpacket_req, tpacket_stats, tpacket_versions, tpacket2_hdr};
use memmap2::{MmapOptions, MmapRaw};
use socket2::Socket;

use super::packet::SNAP_BYTES;

/// A frame's header, the address that the packet came from, and the beginning of the packet.
const FRAME_BYTES: usize = 256;

/// The kernel puts a packet without its link header 16 bytes behind the two headers, then aligned (`tpacket_rcv`).
const _: () = assert!(libc::TPACKET2_HDRLEN.next_multiple_of(16) + 16 + SNAP_BYTES <= FRAME_BYTES);

/// Frames of a ring.
pub(super) const FRAMES: usize = 16_384;

const RING_BYTES: usize = FRAMES * FRAME_BYTES;

/// The kernel allocates the ring in blocks of whole pages; 64 KiB is the largest page that there is.
const BLOCK_BYTES: usize = 64 * 1024;

/// Processors that may be filling frames at the same time, and finish in another order than they began.
const MAX_FILLING: usize = 32;

/// Longest wait for a frame that is not filled when a later one is. Filling takes less than a microsecond, but the
/// processor of a virtual machine may be taken away meanwhile.
const PATIENCE: Duration = Duration::from_millis(10);

/// The ring, and the frame to take next.
#[derive(Debug)]
pub(super) struct Ring {
    memory: MmapRaw,
    next: usize,
}

/// A copy of a frame that the kernel has filled.
#[repr(C)]
pub(super) struct Captured {
    header: tpacket2_hdr,
    rest: [u8; FRAME_BYTES - size_of::<tpacket2_hdr>()],
}

impl Ring {
    /// Gives the socket a ring. The packets in its queue are thrown away (`packet_set_ring`).
    pub(super) fn new(socket: &Socket) -> io::Result<Self> {
        let version = tpacket_versions::TPACKET_V2 as c_int;
        set(socket, libc::PACKET_VERSION, &version)?;
        let request = tpacket_req {
            tp_block_size: BLOCK_BYTES as u32,
            tp_block_nr: (RING_BYTES / BLOCK_BYTES) as u32,
            tp_frame_size: FRAME_BYTES as u32,
            tp_frame_nr: FRAMES as u32,
        };
        set(socket, libc::PACKET_RX_RING, &request)?;
        let memory = MmapOptions::new()
            .len(RING_BYTES)
            .map_raw(socket.as_raw_fd())?;
        Ok(Self { memory, next: 0 })
    }

    /// The next packet; `None` only if every packet that has passed was given. A packet that has passed may stand
    /// behind a packet that is just being copied; then the latter is waited for, at most for [`PATIENCE`].
    pub(super) fn next(&mut self) -> Option<Captured> {
        let mut since = None;
        loop {
            if let Some(captured) = self.take() {
                return Some(captured);
            }
            let mut later = self.next + 1..=self.next + MAX_FILLING;
            if !later.any(|frame| self.is_filled(frame)) {
                return None;
            }
            if since.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                return None;
            }
            thread::yield_now();
        }
    }

    fn is_filled(&self, frame: usize) -> bool {
        self.status(frame).load(Ordering::Acquire) & libc::TP_STATUS_USER != 0
    }

    /// Copies the next frame, if it is filled, and gives it back to the kernel.
    #[allow(unsafe_code)]
    fn take(&mut self) -> Option<Captured> {
        if !self.is_filled(self.next) {
            return None;
        }
        let frame = self.frame(self.next).cast::<Captured>();
        // SAFETY: the frame lies in the ring, begins at a multiple of its size, and is as large as a `Captured`, for
        // which any bytes will do. It is ours: the kernel has set its status after the rest of it (acquired above),
        // and does not touch it until we set the status to 0; and only this method does, which has the ring alone.
        let captured = unsafe { frame.read() };
        let status = self.status(self.next);
        status.store(libc::TP_STATUS_KERNEL, Ordering::Release);
        self.next = (self.next + 1) % FRAMES;
        Some(captured)
    }

    /// Who owns the frame: the kernel writes this word while we look at it.
    #[allow(unsafe_code)]
    fn status(&self, frame: usize) -> &AtomicU32 {
        let status = self
            .frame(frame)
            .wrapping_add(offset_of!(tpacket2_hdr, tp_status));
        // SAFETY: it lies in the ring, which stays mapped as long as `self` is there, and is aligned as the frame
        // is. On our side everybody who may meet the kernel there uses this atomic; the kernel writes it whole.
        unsafe { AtomicU32::from_ptr(status.cast()) }
    }

    /// Where a frame begins; after the last frame the count goes on at the first. No gap is between frames, because a
    /// block is full of them.
    fn frame(&self, frame: usize) -> *mut u8 {
        const { assert!(BLOCK_BYTES.is_multiple_of(FRAME_BYTES)) };
        const { assert!(size_of::<Captured>() == FRAME_BYTES) };
        let start = self.memory.as_mut_ptr();
        start.wrapping_add(frame % FRAMES * FRAME_BYTES)
    }
}

impl Captured {
    /// The beginning of the packet, from its IP header on.
    pub(super) fn bytes(&self) -> &[u8] {
        let header = size_of::<tpacket2_hdr>();
        let start = usize::from(self.header.tp_net).checked_sub(header);
        let rest = start.and_then(|start| self.rest.get(start..));
        let kept = (self.header.tp_snaplen as usize).min(SNAP_BYTES);
        // No packet is empty: an empty one shows that the kernel lays out a frame in another way.
        rest.and_then(|rest| rest.get(..kept)).unwrap_or_default()
    }

    /// The length of the whole packet, from its IP header on; with the padding, if the frame on the wire was short.
    pub(super) fn length(&self) -> u32 {
        self.header.tp_len
    }

    /// When the packet passed, on `CLOCK_REALTIME`.
    pub(super) fn wall(&self) -> Duration {
        Duration::from_secs(self.header.tp_sec.into())
            + Duration::from_nanos(self.header.tp_nsec.into())
    }
}

/// How many packets found no room since the last call (`PACKET_STATISTICS`).
#[allow(unsafe_code)]
pub(super) fn lost_since(socket: &Socket) -> io::Result<u32> {
    let mut statistics = tpacket_stats {
        tp_packets: 0,
        tp_drops: 0,
    };
    let mut length = size_of::<tpacket_stats>() as socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, plain numbers, into `statistics`, and how many into `length`;
    // both are there until it returns.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut statistics).cast(),
            &raw mut length,
        )
    };
    match answer {
        0 => Ok(statistics.tp_drops),
        _ => Err(io::Error::last_os_error()),
    }
}

#[allow(unsafe_code)]
fn set<T>(socket: &Socket, option: c_int, value: &T) -> io::Result<()> {
    // SAFETY: the kernel only reads, and no more than the bytes of `value`, which is there until it returns.
    let answer = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            option,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as socklen_t,
        )
    };
    match answer {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ring without a kernel: tests fill a frame by setting its status, and the rest of it stays empty.
    fn ring() -> Ring {
        let memory = MmapOptions::new().len(RING_BYTES).map_anon().unwrap();
        Ring {
            memory: memory.into(),
            next: 0,
        }
    }

    fn fill(ring: &Ring, frame: usize) {
        let filled = libc::TP_STATUS_USER | libc::TP_STATUS_CSUM_VALID | libc::TP_STATUS_LOSING;
        ring.status(frame).store(filled, Ordering::Release);
    }

    #[test]
    fn each_frame_is_taken_once_in_every_round() {
        let mut ring = ring();
        assert!(ring.next().is_none());
        for frame in 0..3 * FRAMES {
            fill(&ring, frame);
            assert!(ring.next().is_some());
            assert!(ring.next().is_none());
        }
        (0..FRAMES).for_each(|frame| fill(&ring, frame));
        assert_eq!(std::iter::from_fn(|| ring.next()).count(), FRAMES);
    }

    #[test]
    fn a_frame_that_is_still_being_filled_is_waited_for() {
        for unfinished in [1, MAX_FILLING] {
            let mut ring = ring();
            ring.next = FRAMES - 1;
            fill(&ring, ring.next + unfinished);
            let start = Instant::now();
            assert!(ring.next().is_none());
            assert!(start.elapsed() > PATIENCE);
            (0..unfinished).for_each(|it| fill(&ring, ring.next + it));
            assert_eq!(std::iter::from_fn(|| ring.next()).count(), unfinished + 1);
        }
    }

    #[test]
    fn a_packet_holds_no_more_than_its_frame() {
        let bytes = |net: usize, kept: usize| {
            let header = tpacket2_hdr {
                tp_status: libc::TP_STATUS_USER,
                tp_len: 1500,
                tp_snaplen: kept as u32,
                tp_mac: net as u16,
                tp_net: net as u16,
                tp_sec: u32::MAX,
                tp_nsec: u32::MAX,
                tp_vlan_tci: 0,
                tp_vlan_tpid: 0,
                tp_padding: [0; 4],
            };
            let mut rest = [0; _];
            rest[48] = 0x45;
            let captured = Captured { header, rest };
            assert!(captured.wall() > Duration::ZERO);
            captured.bytes().to_vec()
        };
        assert_eq!(bytes(80, 2), [0x45, 0]);
        assert_eq!(bytes(80, 128).len(), 128);
        assert_eq!(bytes(80, 10_000).len(), 128);
        for (net, kept) in [(0, 2), (31, 2), (200, 128), (65_535, 1)] {
            assert!(bytes(net, kept).is_empty());
        }
    }
}
