//! Where requests go: the address to connect to, and what the request says of it.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::url::Url;

/// A server, and what stands in a request for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target<A = Address> {
    /// Where to connect to.
    pub address: A,
    /// The field `Host` (RFC 9110 §7.2), valid as a field's value.
    pub host: String,
    /// The request target in origin form (RFC 9112 §3.2.1).
    pub path: String,
}

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// An address and port.
    Tcp(SocketAddr),
    /// The path of a unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl<A: From<SocketAddr>> From<SocketAddr> for Target<A> {
    fn from(address: SocketAddr) -> Self {
        Self {
            address: address.into(),
            host: address.to_string(),
            path: "/".to_owned(),
        }
    }
}

impl<A> Target<A> {
    /// The server that a URL names, at one of its addresses.
    pub(crate) fn new(url: &Url, address: A) -> Self {
        Self {
            address,
            host: url.authority().to_owned(),
            path: url.path(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn a_url_becomes_an_address_a_host_and_a_path() {
        for (url, address, host, path) in [
            (
                "http://[::1]:8080/a?b=c",
                "[::1]:8080",
                "[::1]:8080",
                "/a?b=c",
            ),
            ("http://127.0.0.1", "127.0.0.1:80", "127.0.0.1", "/"),
            ("http://127.0.0.1?b=c", "127.0.0.1:80", "127.0.0.1", "/?b=c"),
        ] {
            let url = Url::parse(url).unwrap();
            let target = Target::new(&url, url.address(LIMIT).await.unwrap());
            assert_eq!(target.address.to_string(), address);
            assert_eq!((target.host.as_str(), target.path.as_str()), (host, path));
        }
    }
}
