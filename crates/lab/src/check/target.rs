use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::load::Url;

/// The server to check, and what stands in a request for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Where to connect to.
    pub address: Address,
    /// The field `Host` (RFC 9110 §7.2).
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

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Self {
        Self {
            address: Address::Tcp(address),
            host: address.to_string(),
            path: "/".to_owned(),
        }
    }
}

impl Target {
    /// Looks the URL's host up, unless a unix socket stands in its place.
    ///
    /// # Errors
    /// As [`Url::address`].
    pub(crate) async fn resolve(
        url: &Url,
        unix: Option<&Path>,
        limit: Duration,
    ) -> anyhow::Result<Self> {
        let address = match unix {
            Some(path) => Address::Unix(path.to_owned()),
            None => Address::Tcp(url.address(limit).await?),
        };
        Ok(Self {
            address,
            host: url.authority().to_owned(),
            path: url.path().as_str().to_owned(),
        })
    }
}
