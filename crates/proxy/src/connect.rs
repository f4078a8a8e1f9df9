//! The TCP connection to the upstream, with the receive buffer that the settings ask for.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpSocket, TcpStream, lookup_host};

use crate::config::ProxyConfig;

/// Connects to the first address of the upstream's name that takes a connection.
pub(crate) async fn connect(config: &ProxyConfig) -> io::Result<TcpStream> {
    let Some(rcvbuf) = config.rcvbuf else {
        return TcpStream::connect(&config.upstream).await;
    };
    let mut failed = io::Error::other("the name has no address");
    for address in lookup_host(&config.upstream).await? {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        // Before the connect, because the SYN carries the scale of the window, which follows from the size (tcp(7)).
        socket.set_recv_buffer_size(rcvbuf)?;
        match socket.connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = error,
        }
    }
    Err(failed)
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
        let stream = connect(&config(Some(30_000))).await.unwrap();
        // The kernel doubles the number (socket(7)).
        assert_eq!(SockRef::from(&stream).recv_buffer_size().unwrap(), 60_000);
        let stream = connect(&config(None)).await.unwrap();
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
