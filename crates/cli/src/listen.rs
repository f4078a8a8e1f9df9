//! The socket a program listens on.

use anyhow::Context as _;
use tokio::net::{TcpListener, TcpSocket, lookup_host};

/// Connections that the kernel holds until they are accepted (it caps this at `net.core.somaxconn`).
const BACKLOG: u32 = 4096;

/// Listens on `address`, a `host:port`; the error names `setting`.
///
/// # Errors
/// The name does not resolve, the port is in use, or the address is not this machine's.
pub async fn listen(setting: &str, address: &str) -> anyhow::Result<TcpListener> {
    let listener = async {
        let address = lookup_host(address)
            .await?
            .next()
            .ok_or_else(|| std::io::Error::other("the name has no address"))?;
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listener
        .await
        .with_context(|| format!("cannot listen on {address}; {setting} sets another address"))
}
