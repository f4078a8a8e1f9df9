use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use http::uri::PathAndQuery;
use http::{HeaderValue, Uri};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

/// Where requests go: an address, and what stands in the request for it.
#[derive(Debug, Clone)]
pub struct Target {
    /// The address to connect to.
    pub address: SocketAddr,
    /// The field `Host` (RFC 9110 §7.2).
    pub host: HeaderValue,
    /// The request target in origin form (RFC 9112 §3.2.1).
    pub path: PathAndQuery,
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Self {
        let host = HeaderValue::try_from(address.to_string());
        Self {
            address,
            host: host.expect("digits, dots, colons and brackets are a sound field value"),
            path: PathAndQuery::from_static("/"),
        }
    }
}

/// A URL of the kind that [`Target::resolve`] takes.
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
            // Without a port nothing may stand where it should.
            && (authority.port_u16().is_some() || authority.as_str() == authority.host());
        sound.then_some(Self(uri))
    }

    /// Looks the host up: of its addresses the first that accepts a connection within `limit`.
    ///
    /// # Errors
    /// The name does not resolve, or none of several addresses accepts.
    pub(crate) async fn address(&self, limit: Duration) -> anyhow::Result<SocketAddr> {
        let host = self.0.host().unwrap_or_default();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let found = lookup_host((bare, self.0.port_u16().unwrap_or(80))).await;
        let found = found.with_context(|| format!("cannot resolve {host}"))?;
        let accepts = first_that_accepts(found.collect(), limit).await;
        accepts.with_context(|| format!("cannot connect to {host}"))
    }

    /// What stands in `Host`.
    pub(crate) fn authority(&self) -> &str {
        let authority = self.0.authority();
        authority.map_or("", |authority| authority.as_str())
    }

    /// The request target in origin form.
    pub(crate) fn path(&self) -> PathAndQuery {
        let path = self.0.path_and_query().cloned();
        path.unwrap_or_else(|| PathAndQuery::from_static("/"))
    }
}

/// An only address is not tried: whoever connects to it says what is wrong there.
async fn first_that_accepts(
    mut addresses: Vec<SocketAddr>,
    limit: Duration,
) -> anyhow::Result<SocketAddr> {
    // A name may stand in /etc/hosts twice.
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

impl Target {
    /// Looks the URL's host up, once for the whole run.
    ///
    /// # Errors
    /// As [`Url::address`].
    pub(super) async fn resolve(url: &Url, limit: Duration) -> anyhow::Result<Self> {
        Ok(Self {
            address: url.address(limit).await?,
            host: HeaderValue::from_str(url.authority())?,
            path: url.path(),
        })
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

    #[tokio::test]
    async fn a_url_becomes_an_address_a_host_and_a_path() {
        let url = Url::parse("http://[::1]:8080/a?b=c").unwrap();
        let target = Target::resolve(&url, LIMIT).await.unwrap();
        assert_eq!(target.address, "[::1]:8080".parse().unwrap());
        assert_eq!(target.host, "[::1]:8080");
        assert_eq!(target.path, "/a?b=c");

        let url = Url::parse("http://127.0.0.1").unwrap();
        let target = Target::resolve(&url, LIMIT).await.unwrap();
        assert_eq!(target.address, "127.0.0.1:80".parse().unwrap());
        assert_eq!(
            (target.host, target.path.as_str()),
            ("127.0.0.1".parse().unwrap(), "/")
        );
    }
}
