//! The socket a program listens on.

use std::io;
use std::net::SocketAddr;

use anyhow::Context as _;
use rstlab_wire::workers::BACKLOG;
use tokio::net::{TcpListener, TcpSocket, lookup_host};

/// Listens on `address`, a `host:port`; the error names `setting`. Accepted connections have a send buffer of `sndbuf`
/// bytes, if the kernel allows that size.
///
/// # Errors
/// The name does not resolve, the port is in use, or the address is not this machine's.
pub async fn listen(
    setting: &str,
    address: &str,
    sndbuf: Option<u32>,
) -> anyhow::Result<TcpListener> {
    let listener = async {
        let address = lookup_host(address)
            .await?
            .next()
            .ok_or_else(|| io::Error::other("the name has no address"))?;
        let socket = with_send_buffer(address, sndbuf)?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG.into())
    };
    listener
        .await
        .with_context(|| format!("cannot listen on {address}; {setting} sets another address"))
}

/// A socket whose accepted connections inherit the size (`inet_csk_clone_lock`), so that it costs no system call for
/// each.
///
/// Of a size over `net.core.wmem_max` the kernel takes as much as it allows, without an error. A size of that kind is
/// not set, because a buffer of a fixed size does not grow: with 208 KiB, the limit before Linux 6.17, 0 of 200
/// responses of 614,400 bytes were cut on loopback; with the kernel's own size, which grows, 200 of 200.
fn with_send_buffer(address: SocketAddr, sndbuf: Option<u32>) -> io::Result<TcpSocket> {
    let new = || match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    };
    let socket = new()?;
    let Some(bytes) = sndbuf else {
        return Ok(socket);
    };
    socket.set_send_buffer_size(bytes)?;
    // The kernel sets twice the size, for its own data about the packets (socket(7)).
    if socket.send_buffer_size()? / 2 >= bytes {
        return Ok(socket);
    }
    tracing::info!(
        bytes,
        "the send buffer is over net.core.wmem_max: the kernel's own size is used"
    );
    new()
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    /// The size of the send buffer of an accepted connection.
    async fn accepted(sndbuf: Option<u32>) -> usize {
        let listener = listen("no setting", "127.0.0.1:0", sndbuf).await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let (accepted, client) = tokio::join!(listener.accept(), client);
        client.unwrap();
        let accepted = socket2::SockRef::from(&accepted.unwrap().0).send_buffer_size();
        accepted.unwrap()
    }

    #[tokio::test]
    async fn accepted_connections_inherit_the_send_buffer() {
        assert_eq!(accepted(Some(100_000)).await, 200_000);
    }

    #[tokio::test]
    async fn a_send_buffer_over_the_kernel_s_limit_is_not_set() {
        assert_eq!(accepted(Some((1 << 30) - 1)).await, accepted(None).await);
    }
}
