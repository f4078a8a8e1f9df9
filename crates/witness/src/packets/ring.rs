//! The ring of a packet socket (`PACKET_MMAP`, packet(7)): memory into which the kernel copies the beginnings of
//! packets (`tpacket_rcv`), frame by frame, and from which we take them. The ring is of version 2, in which a packet can
//! be seen as soon as the packet has passed; version 3 gathers packets for a while.

use std::ffi::c_int;
use std::io;
use std::mem::offset_of;
use std::os::fd::AsRawFd as _;
use std::slice;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use libc::{socklen_t, tpacket_req, tpacket_stats, tpacket_versions, tpacket2_hdr};
use memmap2::{MmapOptions, MmapRaw};
use socket2::Socket;

use super::packet::Snap;

/// Bytes of a frame before the packet: the frame's header and the address that the packet came from. The kernel puts a
/// packet without its link header 16 bytes behind the two, then aligned (`tpacket_rcv`).
const BEFORE_PACKET: usize = libc::TPACKET2_HDRLEN.next_multiple_of(16) + 16;

/// Frames of a ring.
pub(super) const FRAMES: usize = 16_384;

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
    snap: Snap,
    next: usize,
}

/// A copy of a frame that the kernel has filled.
pub(super) struct Captured {
    length: u32,
    wall: Duration,
    bytes: Box<[u8]>,
}

impl Ring {
    /// Gives the socket a ring. The packets in its queue are thrown away (`packet_set_ring`).
    pub(super) fn new(socket: &Socket, snap: Snap) -> io::Result<Self> {
        let version = tpacket_versions::TPACKET_V2 as c_int;
        set(socket, libc::PACKET_VERSION, &version)?;
        let request = tpacket_req {
            tp_block_size: BLOCK_BYTES as u32,
            tp_block_nr: (ring_bytes(snap) / BLOCK_BYTES) as u32,
            tp_frame_size: frame_bytes(snap) as u32,
            tp_frame_nr: FRAMES as u32,
        };
        set(socket, libc::PACKET_RX_RING, &request)?;
        let memory = MmapOptions::new()
            .len(ring_bytes(snap))
            .map_raw(socket.as_raw_fd())?;
        Ok(Self {
            memory,
            snap,
            next: 0,
        })
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
        // SAFETY: the frame lies in the ring, and is as long as `frame_bytes` says. It is ours: the kernel has set its
        // status after the rest of it (acquired above), and does not touch it until we set the status to 0; and only
        // this method does, which has the ring alone.
        let frame = unsafe { slice::from_raw_parts(self.frame(self.next), frame_bytes(self.snap)) };
        let captured = Captured::copy(frame, self.snap);
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
        let start = self.memory.as_mut_ptr();
        start.wrapping_add(frame % FRAMES * frame_bytes(self.snap))
    }
}

/// Bytes of a frame: a power of two, so that a block is full of frames.
const fn frame_bytes(snap: Snap) -> usize {
    (BEFORE_PACKET + snap.bytes()).next_power_of_two()
}

const fn ring_bytes(snap: Snap) -> usize {
    FRAMES * frame_bytes(snap)
}

impl Captured {
    fn copy(frame: &[u8], snap: Snap) -> Self {
        let bytes = |at: usize| frame.get(at..);
        let word = |at| bytes(at).and_then(<[u8]>::first_chunk).copied();
        let word = |at| u32::from_ne_bytes(word(at).unwrap_or_default());
        let net = bytes(offset_of!(tpacket2_hdr, tp_net)).and_then(<[u8]>::first_chunk);
        let net = usize::from(net.map_or(0, |net| u16::from_ne_bytes(*net)));
        let kept = (word(offset_of!(tpacket2_hdr, tp_snaplen)) as usize).min(snap.bytes());
        // No packet is empty: an empty one shows that the kernel lays out a frame in another way.
        let packet = bytes(net).filter(|_| net >= size_of::<tpacket2_hdr>());
        let packet = packet.and_then(|it| it.get(..kept)).unwrap_or_default();
        Self {
            length: word(offset_of!(tpacket2_hdr, tp_len)),
            wall: Duration::from_secs(word(offset_of!(tpacket2_hdr, tp_sec)).into())
                + Duration::from_nanos(word(offset_of!(tpacket2_hdr, tp_nsec)).into()),
            bytes: packet.into(),
        }
    }

    /// The beginning of the packet, from its IP header on.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The length of the whole packet, from its IP header on; with the padding, if the frame on the wire was short.
    pub(super) fn length(&self) -> u32 {
        self.length
    }

    /// When the packet passed, on `CLOCK_REALTIME`.
    pub(super) fn wall(&self) -> Duration {
        self.wall
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
    fn ring(snap: Snap) -> Ring {
        let memory = MmapOptions::new().len(ring_bytes(snap)).map_anon();
        Ring {
            memory: memory.unwrap().into(),
            snap,
            next: 0,
        }
    }

    fn fill(ring: &Ring, frame: usize) {
        let filled = libc::TP_STATUS_USER | libc::TP_STATUS_CSUM_VALID | libc::TP_STATUS_LOSING;
        ring.status(frame).store(filled, Ordering::Release);
    }

    #[test]
    fn each_frame_is_taken_once_in_every_round() {
        for snap in [Snap::Beginning, Snap::Payload] {
            assert!(BLOCK_BYTES.is_multiple_of(frame_bytes(snap)));
            let mut ring = ring(snap);
            assert!(ring.next().is_none());
            for frame in 0..3 * FRAMES {
                fill(&ring, frame);
                assert!(ring.next().is_some());
                assert!(ring.next().is_none());
            }
            (0..FRAMES).for_each(|frame| fill(&ring, frame));
            assert_eq!(std::iter::from_fn(|| ring.next()).count(), FRAMES);
        }
    }

    #[test]
    fn a_frame_that_is_still_being_filled_is_waited_for() {
        for unfinished in [1, MAX_FILLING] {
            let mut ring = ring(Snap::Beginning);
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
        let bytes = |net: u16, kept: u32, snap| {
            let mut frame = vec![0; frame_bytes(snap)];
            let mut put =
                |at: usize, bytes: &[u8]| frame[at..][..bytes.len()].copy_from_slice(bytes);
            put(offset_of!(tpacket2_hdr, tp_len), &1500_u32.to_ne_bytes());
            put(offset_of!(tpacket2_hdr, tp_snaplen), &kept.to_ne_bytes());
            put(offset_of!(tpacket2_hdr, tp_net), &net.to_ne_bytes());
            put(offset_of!(tpacket2_hdr, tp_sec), &[0xff; 8]);
            put(80, &[0x45]);
            let captured = Captured::copy(&frame, snap);
            assert_eq!(captured.length(), 1500);
            assert!(captured.wall() > Duration::from_secs(u32::MAX.into()));
            captured.bytes().to_vec()
        };
        for (snap, most) in [(Snap::Beginning, 164), (Snap::Payload, 1500)] {
            assert_eq!(bytes(80, 2, snap), [0x45, 0]);
            assert_eq!(bytes(80, 10_000, snap).len(), most);
            for (net, kept) in [(0, 2), (31, 2), (2000, 128), (65_535, 1)] {
                assert!(bytes(net, kept, snap).is_empty());
            }
        }
    }
}
