//! The `http://` URLs that `load` and `check` take, and the address that each leads to.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use http::Uri;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

/// A URL that says where a plain HTTP server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url(Uri);

impl Url {
    /// An `http://` URL with a host and without a user name.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let uri: Uri = text.parse().ok()?;
        let authority = uri.authority()?;
        let sound = uri.scheme_str() == Some("http")
            && !authority.host().is_empty()
            && !authority.as_str().contains('@')
            // Without a valid port nothing may follow the host.
            && (authority.port_u16().is_some() || authority.as_str() == authority.host());
        sound.then_some(Self(uri))
    }

    /// Looks the host up: of its addresses the first that accepts a connection within `limit`.
    ///
    /// # Errors
    /// The name does not resolve, or none of several addresses accepts.
    pub(crate) async fn address(&self, limit: Duration) -> anyhow::Result<SocketAddr> {
        let (host, port) = self.host_port();
        address_of(host, port, limit).await
    }

    /// The host, an IPv6 address without brackets, and the port.
    pub(crate) fn host_port(&self) -> (&str, u16) {
        let host = self.0.host().unwrap_or_default();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        (bare, self.0.port_u16().unwrap_or(80))
    }

    /// The value of the field `Host`.
    pub(crate) fn authority(&self) -> &str {
        let authority = self.0.authority();
        authority.map_or("", |authority| authority.as_str())
    }

    /// The request target in origin form.
    pub(crate) fn path(&self) -> String {
        // The text of an `http://host?query` has the slash only as displayed.
        let path = self.0.path_and_query().map(ToString::to_string);
        path.unwrap_or_else(|| "/".to_owned())
    }
}

/// Looks a host up: of its addresses the first that accepts a connection within `limit`.
///
/// # Errors
/// The name does not resolve, or none of several addresses accepts.
pub(crate) async fn address_of(
    host: &str,
    port: u16,
    limit: Duration,
) -> anyhow::Result<SocketAddr> {
    let found = lookup_host((host, port)).await;
    let found = found.with_context(|| format!("cannot resolve {host}"))?;
    let accepts = first_that_accepts(found.collect(), limit).await;
    accepts.with_context(|| format!("cannot connect to {host}"))
}

/// The first of several addresses that accepts a connection within `limit`. A single address is not tried: the command that
/// connects to it reports what is wrong there.
///
/// # Errors
/// None of them accepts.
pub(crate) async fn first_that_accepts(
    mut addresses: Vec<SocketAddr>,
    limit: Duration,
) -> anyhow::Result<SocketAddr> {
    // /etc/hosts may list a name twice.
    let mut seen = HashSet::new();
    addresses.retain(|address| seen.insert(*address));
    if let [only] = addresses[..] {
        return Ok(only);
    }
    let mut tried = Vec::new();
    for address in addresses {
        match timeout(limit, TcpStream::connect(address)).await {
            Ok(Ok(_)) => return Ok(address),
            Ok(Err(error)) => tried.push(format!("{address}: {error}")),
            Err(_) => tried.push(format!("{address}: no answer within {limit:?}")),
        }
    }
    if tried.is_empty() {
        bail!("it has no address");
    }
    bail!("none of its addresses accepts: {}", tried.join("; "))
}

impl std::fmt::Display for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_http_urls_with_a_host() {
        for good in [
            "http://127.0.0.1:8080",
            "http://localhost/a?b=c",
            "http://[::1]:8080/",
            "http://[::1]",
        ] {
            assert!(Url::parse(good).is_some(), "{good}");
        }
        for bad in [
            "https://localhost/",
            "localhost:8080",
            "/path",
            "",
            "http://",
            "http://user@host/",
            "http://host:99999/",
            "http://host:port/",
            "ftp://host/",
            "http://a b/",
        ] {
            assert!(Url::parse(bad).is_none(), "{bad}");
        }
    }

    const LIMIT: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn the_first_address_that_accepts_is_taken() {
        let listen = async || tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (gone, first, second) = (listen().await, listen().await, listen().await);
        let [gone_at, first_at, second_at] =
            [&gone, &first, &second].map(|one| one.local_addr().unwrap());
        drop(gone);
        let of = |addresses: &[SocketAddr]| first_that_accepts(addresses.to_vec(), LIMIT);
        assert_eq!(of(&[gone_at, first_at, second_at]).await.unwrap(), first_at);
        assert_eq!(of(&[second_at, first_at]).await.unwrap(), second_at);
        assert_eq!(of(&[gone_at, gone_at]).await.unwrap(), gone_at);

        drop(second);
        let error = of(&[gone_at, second_at]).await.unwrap_err().to_string();
        for address in [gone_at, second_at] {
            assert!(
                error.contains(&format!("{address}: Connection refused")),
                "{error}"
            );
        }
        assert!(of(&[]).await.is_err());
    }
}
