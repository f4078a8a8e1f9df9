//! The socket that captures packets.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rstlab_wire::monotonic_now;
use rustix::time::{ClockId, clock_gettime};
use socket2::{Domain, Protocol, Socket, Type};

use super::filter;
use super::packet::Snap;
use super::ring::{self, Ring};
use crate::unavailable::Unavailable;

/// `ETH_P_ALL` (`linux/if_ether.h`): incoming packets only are given to a socket that asks for one protocol.
const EVERY_PROTOCOL: u16 = 3;

/// The most packets that wait in the kernel.
pub(super) const MAX_QUEUED: usize = ring::FRAMES;

/// Most packets that one call takes.
pub(super) const BATCH: usize = 64;

/// A smaller change of the offset between the two clocks than this is the time that reading them takes. A larger one
/// means that a clock was set: the kernel slews both alike.
const SET: Duration = Duration::from_micros(100);

/// An `AF_PACKET` socket that gets the segments of some ports, or only their RSTs, from all interfaces of its network
/// namespace.
#[derive(Debug)]
pub(super) struct PacketSocket {
    socket: Socket,
    ring: Ring,
    lost: u64,
}

impl PacketSocket {
    pub(super) fn open(ports: &[u16], resets_only: bool, snap: Snap) -> Result<Self, Unavailable> {
        let failed = |doing| move |error| Unavailable::capture(doing, error);
        let protocol = Protocol::from(i32::from(EVERY_PROTOCOL.to_be()));
        // DGRAM: without the header of the link, whatever that is.
        let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(protocol))
            .map_err(failed("open a packet socket"))?;
        // The socket has received every packet since it was opened. So first a filter stops all packets, the ring
        // replaces the queue, which throws away what had come, and then the filter for our packets is set.
        let closed = socket.attach_filter(&filter::nothing());
        closed.map_err(failed("set the filter of a packet socket"))?;
        let ring =
            Ring::new(&socket, snap).map_err(failed("set up the ring of a packet socket"))?;
        // This resets the count: packets that found no room until now are not ours.
        ring::lost_since(&socket).map_err(failed("ask a packet socket what it lost"))?;
        let opened = socket.attach_filter(&filter::segments_of(ports, resets_only, snap));
        opened.map_err(failed("set the filter of a packet socket"))?;
        Ok(Self {
            socket,
            ring,
            lost: 0,
        })
    }

    /// Takes packets that have come, without waiting for more, and gives each to `take`: its beginning, its whole
    /// length, and when it came, on `CLOCK_MONOTONIC` and on `CLOCK_REALTIME`, which is `offset` ahead. Returns how
    /// many; if they are fewer than a batch, there are no more.
    pub(super) fn receive(
        &mut self,
        offset: Duration,
        mut take: impl FnMut(&[u8], u32, Duration, Duration),
    ) -> io::Result<usize> {
        let mut count = 0;
        while count < BATCH
            && let Some(captured) = self.ring.next()
        {
            count += 1;
            let wall = captured.wall();
            let at = wall.saturating_sub(offset);
            take(captured.bytes(), captured.length(), at, wall);
        }
        self.lost += u64::from(ring::lost_since(&self.socket)?);
        Ok(count)
    }

    /// How many packets found no room in the ring, up to the last call of [`receive`](Self::receive).
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// From `CLOCK_MONOTONIC` to `CLOCK_REALTIME`: as `known`, unless somebody has set the clock.
pub(super) fn offset(known: Option<Duration>) -> Duration {
    let (before, wall, after) = (monotonic_now(), realtime_now(), monotonic_now());
    let between = after.saturating_sub(before);
    let measured = wall.saturating_sub(before + between / 2);
    match known {
        Some(known) if measured.abs_diff(known) < SET || between > SET => known,
        _ => measured,
    }
}

fn realtime_now() -> Duration {
    // Before 1970 only on a machine without a clock.
    Duration::try_from(clock_gettime(ClockId::Realtime)).unwrap_or_default()
}

/// These tests need the privilege to capture.
#[cfg(test)]
#[cfg(feature = "kernel")]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr, TcpStream};

    use super::*;
    use crate::packets::decode::decode;
    use crate::packets::packet::Packet;

    /// A port at which nobody listens: each attempt to connect makes two packets, a SYN and the RST that refuses it.
    struct Refusing {
        address: SocketAddr,
        capture: PacketSocket,
        taken: Vec<Packet>,
        _bound: Socket,
    }

    impl Refusing {
        fn new() -> Self {
            let bound = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            bound.bind(&any.into()).unwrap();
            let address = bound.local_addr().unwrap().as_socket().unwrap();
            Self {
                address,
                capture: PacketSocket::open(&[address.port()], false, Snap::Beginning).unwrap(),
                taken: Vec::new(),
                _bound: bound,
            }
        }

        fn connect(&self, times: usize) {
            for _ in 0..times {
                let refused = TcpStream::connect(self.address).unwrap_err();
                assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
            }
        }

        fn take_all(&mut self) {
            loop {
                let taken = &mut self.taken;
                let count = self
                    .capture
                    .receive(offset(None), |bytes, length, at, wall| {
                        taken.push(decode(bytes, length, at, wall).unwrap());
                        assert_eq!(bytes.len(), length as usize);
                    });
                if count.unwrap() < BATCH {
                    return;
                }
            }
        }

        /// Each SYN is followed by its own answer.
        fn assert_in_order(&self) {
            for [syn, rst] in self.taken.as_chunks().0 {
                assert!(syn.flags.syn() && syn.to == self.address, "{syn:?}");
                assert!(rst.flags.rst() && rst.to == syn.from, "{rst:?}");
                assert_eq!(rst.ack, Some(syn.seq.wrapping_add(1)));
                assert!(monotonic_now().abs_diff(syn.at) < Duration::from_secs(60));
            }
        }
    }

    #[test]
    fn packets_are_taken_in_order_over_several_rounds_of_the_ring() {
        let mut refusing = Refusing::new();
        while refusing.taken.len() < 2 * MAX_QUEUED + 2000 {
            refusing.connect(1000);
            refusing.take_all();
        }
        assert_eq!(refusing.taken.len() % 2000, 0);
        refusing.assert_in_order();
        assert_eq!(refusing.capture.lost(), 0);
    }

    #[test]
    fn packets_that_find_no_room_are_counted_and_later_ones_are_taken() {
        let mut refusing = Refusing::new();
        refusing.connect(MAX_QUEUED / 2 + 700);
        refusing.take_all();
        assert_eq!(refusing.taken.len(), MAX_QUEUED);
        assert_eq!(refusing.capture.lost(), 1400);
        refusing.connect(500);
        refusing.take_all();
        assert_eq!(refusing.taken.len(), MAX_QUEUED + 1000);
        assert_eq!(refusing.capture.lost(), 1400);
        refusing.assert_in_order();
    }
}
