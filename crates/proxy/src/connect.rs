//! The TCP connection to the upstream, with the receive buffer that the settings ask for.

use std::io;
use std::net::SocketAddr;

use rustix::io::Errno;
use socket2::{Domain, Socket, Type};
use tokio::io::Interest;
use tokio::net::{TcpStream, lookup_host};

use crate::config::ProxyConfig;

/// Connects to the first address of the upstream's name that takes a connection; returns the address too.
pub(crate) async fn connect(config: &ProxyConfig) -> io::Result<(TcpStream, SocketAddr)> {
    let mut failed = io::Error::other("the name has no address");
    for address in lookup_host(&config.upstream).await? {
        match connect_to(address, config.rcvbuf).await {
            Ok(stream) => return Ok((stream, address)),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// As tokio connects, but asks the socket for an error only if the event says that there is one.
async fn connect_to(address: SocketAddr, rcvbuf: Option<u32>) -> io::Result<TcpStream> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM.nonblocking(), None)?;
    if let Some(bytes) = rcvbuf {
        // Before the connect, because the SYN carries the scale of the window, which follows from the size (tcp(7)).
        socket.set_recv_buffer_size(bytes as usize)?;
    }
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => {
            return Err(error);
        }
        Ok(()) | Err(_) => {}
    }
    let stream = TcpStream::from_std(socket.into())?;
    let ready = stream.ready(Interest::WRITABLE | Interest::ERROR).await?;
    match ready
        .is_error()
        .then(|| stream.take_error())
        .transpose()?
        .flatten()
    {
        Some(error) => Err(error),
        None => Ok(stream),
    }
}

#[cfg(test)]
mod tests {
    use socket2::SockRef;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_connection_has_the_receive_buffer_that_was_asked_for() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = |rcvbuf| ProxyConfig {
            upstream: listener.local_addr().unwrap().to_string(),
            rcvbuf,
            ..ProxyConfig::default()
        };
        let (stream, _) = connect(&config(Some(30_000))).await.unwrap();
        // The kernel doubles the number (socket(7)).
        assert_eq!(SockRef::from(&stream).recv_buffer_size().unwrap(), 60_000);
        let (stream, _) = connect(&config(None)).await.unwrap();
        assert_ne!(SockRef::from(&stream).recv_buffer_size().unwrap(), 60_000);
    }

    #[tokio::test]
    async fn a_refused_connection_says_so() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = ProxyConfig {
            upstream: listener.local_addr().unwrap().to_string(),
            rcvbuf: Some(30_000),
            ..ProxyConfig::default()
        };
        drop(listener);
        let error = connect(&config).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
