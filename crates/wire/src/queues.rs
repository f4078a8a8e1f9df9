//! Asks the kernel for the lengths of a socket's two queues, which needs no privilege.

use std::io;
use std::os::fd::AsFd;

/// Bytes that arrived and were not read yet (`FIONREAD`, `tcp_ioctl(SIOCINQ)`).
///
/// If there are any at `close()`, the kernel sends a RST instead of a FIN (`tcp_close`: `TCP_ABORT_ON_CLOSE`). A FIN
/// does not count, nor do bytes that a library has already read into its own buffer.
///
/// # Errors
/// As `ioctl(2)`: the descriptor is closed or is not a socket.
pub fn unread(socket: impl AsFd) -> io::Result<u64> {
    Ok(rustix::io::ioctl_fionread(socket)?)
}

/// Bytes written and not yet acknowledged by the peer (`SIOCOUTQ`); a RST may destroy them.
///
/// # Errors
/// As `ioctl(2)`: the descriptor is closed or is not a socket.
#[allow(unsafe_code)]
pub fn unsent(socket: impl AsFd) -> io::Result<u64> {
    /// `SIOCOUTQ` is `TIOCOUTQ` (`include/uapi/linux/sockios.h`).
    const SIOCOUTQ: rustix::ioctl::Opcode = 0x5411;
    // SAFETY: SIOCOUTQ takes a pointer to one int and writes that int (tcp(7)); Getter owns it.
    let bytes = unsafe {
        rustix::ioctl::ioctl(
            socket,
            rustix::ioctl::Getter::<SIOCOUTQ, std::ffi::c_int>::new(),
        )
    }?;
    Ok(u64::try_from(bytes).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn unread_counts_the_bytes_that_were_not_read() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(&[7; 100]).unwrap();
        // Reading one byte blocks until the segment is there; the other 99 came with it.
        server.read_exact(&mut [0]).unwrap();
        assert_eq!(unread(&server).unwrap(), 99);
    }

    #[test]
    fn unsent_counts_the_bytes_that_the_peer_has_no_room_for() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        assert_eq!(unsent(&server).unwrap(), 0);
        server.set_nonblocking(true).unwrap();
        while server.write(&[0; 65536]).is_ok() {}
        assert!(unsent(&server).unwrap() > 0);
        drop(client);
    }
}
