use std::net::SocketAddr;

use anyhow::Context as _;
use http::uri::PathAndQuery;
use http::{HeaderValue, Uri};
use tokio::net::lookup_host;

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
pub(super) struct Url(Uri);

impl Url {
    /// An `http://` URL with a host and without a user name.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let uri: Uri = text.parse().ok()?;
        let authority = uri.authority()?;
        let sound = uri.scheme_str() == Some("http")
            && !authority.host().is_empty()
            && !authority.as_str().contains('@')
            // Without a port nothing may stand where it should.
            && (authority.port_u16().is_some() || authority.as_str() == authority.host());
        sound.then_some(Self(uri))
    }
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
    /// The name does not resolve.
    pub(super) async fn resolve(url: &Url) -> anyhow::Result<Self> {
        let host = url.0.host().unwrap_or_default();
        let port = url.0.port_u16().unwrap_or(80);
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let address = lookup_host((bare, port))
            .await
            .with_context(|| format!("cannot resolve {host}"))?
            .next()
            .with_context(|| format!("{host} has no address"))?;
        let authority = url.0.authority().map_or("", |authority| authority.as_str());
        Ok(Self {
            address,
            host: HeaderValue::from_str(authority)?,
            path: url
                .0
                .path_and_query()
                .cloned()
                .unwrap_or_else(|| PathAndQuery::from_static("/")),
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

    #[tokio::test]
    async fn a_url_becomes_an_address_a_host_and_a_path() {
        let url = Url::parse("http://[::1]:8080/a?b=c").unwrap();
        let target = Target::resolve(&url).await.unwrap();
        assert_eq!(target.address, "[::1]:8080".parse().unwrap());
        assert_eq!(target.host, "[::1]:8080");
        assert_eq!(target.path, "/a?b=c");

        let url = Url::parse("http://127.0.0.1").unwrap();
        let target = Target::resolve(&url).await.unwrap();
        assert_eq!(target.address, "127.0.0.1:80".parse().unwrap());
        assert_eq!(
            (target.host, target.path.as_str()),
            ("127.0.0.1".parse().unwrap(), "/")
        );
    }
}
