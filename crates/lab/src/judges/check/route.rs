//! Where connections go in place of where the URL says: a unix socket, and curl's `--connect-to` and `--resolve`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use rstlab_cli::Settings;

use crate::shared::target::{Address, Target};
use crate::shared::url::{Url, address_of, first_that_accepts};

/// The options that say where connections go.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct RouteArgs {
    /// Connect to a unix socket; the URL still says host and path.
    #[arg(long, value_name = "PATH")]
    unix: Option<PathBuf>,

    /// Take ADDR for the address of HOST at PORT; can be given again.
    #[arg(long, value_name = "HOST:PORT:ADDR", conflicts_with = "unix")]
    resolve: Vec<String>,

    /// Connect to HOST2:PORT2 in place of HOST1:PORT1, where an empty HOST1 or PORT1 means any, and an empty HOST2 or
    /// PORT2 the same; can be given again.
    #[arg(long, value_name = "HOST1:PORT1:HOST2:PORT2", conflicts_with = "unix")]
    connect_to: Vec<String>,
}

/// Where connections go.
#[derive(Debug, Clone)]
pub(super) struct Route {
    unix: Option<PathBuf>,
    resolve: Vec<Resolved>,
    connect_to: Vec<Redirect>,
}

/// A host at a port, and the addresses that stand for it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Resolved {
    host: String,
    port: u16,
    addresses: Vec<IpAddr>,
}

/// A host and port, each or any, and the host and port in their place, each or the same.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Redirect {
    host: Option<String>,
    port: Option<u16>,
    to_host: Option<String>,
    to_port: Option<u16>,
}

impl RouteArgs {
    /// The settings, or `None` if one of them is bad.
    pub(super) fn route(&self, settings: &mut Settings) -> Option<Route> {
        let allowed = "host, port and address, such as app.example:8000:127.0.0.1";
        let resolve = self.resolve.iter();
        let resolve = resolve.map(|text| settings.read("--resolve", text, allowed, resolved));
        let resolve: Vec<_> = resolve.collect();
        let allowed =
            "two hosts and ports, such as app.example:80:127.0.0.1:8000 or ::127.0.0.1:8000";
        let connect_to = self.connect_to.iter();
        let connect_to =
            connect_to.map(|text| settings.read("--connect-to", text, allowed, redirect));
        let connect_to: Vec<_> = connect_to.collect();
        Some(Route {
            unix: self.unix.clone(),
            resolve: resolve.into_iter().collect::<Option<_>>()?,
            connect_to: connect_to.into_iter().collect::<Option<_>>()?,
        })
    }
}

impl Route {
    /// The server that the URL names, at the address where this route leads.
    ///
    /// # Errors
    /// The host does not resolve, or none of its addresses accepts a connection within `limit`.
    pub(super) async fn target(&self, url: &Url, limit: Duration) -> anyhow::Result<Target> {
        let address = match &self.unix {
            Some(path) => Address::Unix(path.clone()),
            None => Address::Tcp(self.address(url, limit).await?),
        };
        Ok(Target::new(url, address))
    }

    async fn address(&self, url: &Url, limit: Duration) -> anyhow::Result<SocketAddr> {
        let (host, port) = self.redirected(url.host_port());
        let mut resolved = self.resolve.iter();
        let given = resolved.find(|one| one.port == port && one.host.eq_ignore_ascii_case(host));
        match given {
            Some(one) => {
                let addresses = one.addresses.iter();
                let addresses = addresses.map(|address| SocketAddr::new(*address, port));
                let accepts = first_that_accepts(addresses.collect(), limit).await;
                accepts.with_context(|| format!("cannot connect to {host}"))
            }
            None => address_of(host, port, limit).await,
        }
    }

    /// The host and port to connect to.
    fn redirected<'a>(&'a self, (host, port): (&'a str, u16)) -> (&'a str, u16) {
        let is_meant = |one: &&Redirect| {
            let is_host = |wanted: &String| wanted.eq_ignore_ascii_case(host);
            one.host.as_ref().is_none_or(is_host) && one.port.is_none_or(|wanted| wanted == port)
        };
        match self.connect_to.iter().find(is_meant) {
            Some(one) => {
                let to_host = one.to_host.as_deref();
                (to_host.unwrap_or(host), one.to_port.unwrap_or(port))
            }
            None => (host, port),
        }
    }
}

/// `HOST:PORT:ADDR`, where ADDR may be several addresses with commas between.
fn resolved(text: &str) -> Option<Resolved> {
    let (host, rest) = host_and_rest(text)?;
    let (port, addresses) = rest.split_once(':')?;
    let addresses = addresses.split(',').map(|text| bare(text).parse().ok());
    Some(Resolved {
        host: (!host.is_empty()).then(|| host.to_owned())?,
        port: port.parse().ok()?,
        addresses: addresses.collect::<Option<_>>()?,
    })
}

/// `HOST1:PORT1:HOST2:PORT2`, each of which may be empty.
fn redirect(text: &str) -> Option<Redirect> {
    let (host, rest) = host_and_rest(text)?;
    let (port, rest) = rest.split_once(':')?;
    let (to_host, to_port) = host_and_rest(rest)?;
    let name = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let number = |text: &str| match text {
        "" => Some(None),
        port => port.parse().ok().map(Some),
    };
    Some(Redirect {
        host: name(host),
        port: number(port)?,
        to_host: name(to_host),
        to_port: number(to_port)?,
    })
}

/// A host, in brackets if it is an IPv6 address, and what comes after the colon behind it.
fn host_and_rest(text: &str) -> Option<(&str, &str)> {
    match text.strip_prefix('[') {
        Some(text) => text.split_once("]:"),
        None => text.split_once(':'),
    }
}

/// An address without its brackets.
fn bare(text: &str) -> &str {
    let inner = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    inner.unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    fn route(resolve: &[&str], connect_to: &[&str]) -> Option<Route> {
        let args = RouteArgs {
            unix: None,
            resolve: resolve.iter().map(|text| (*text).to_owned()).collect(),
            connect_to: connect_to.iter().map(|text| (*text).to_owned()).collect(),
        };
        args.route(&mut Settings::default())
    }

    #[tokio::test]
    async fn connections_go_where_resolve_and_connect_to_lead_as_in_curl() {
        let url = Url::parse("http://App.example:8000/path").unwrap();
        for (resolve, connect_to, address) in [
            (
                &["app.example:8000:127.0.0.2"][..],
                &[][..],
                "127.0.0.2:8000",
            ),
            (&["app.example:8000:[::1]"], &[], "[::1]:8000"),
            (
                &["app.example:80:127.0.0.2", "app.example:8000:127.0.0.3"],
                &[],
                "127.0.0.3:8000",
            ),
            (&[], &["::127.0.0.4:"], "127.0.0.4:8000"),
            (&[], &["app.example:8000:[::1]:81"], "[::1]:81"),
            (
                &[],
                &["other.example::127.0.0.5:", "app.example::127.0.0.6:82"],
                "127.0.0.6:82",
            ),
            // The name that --connect-to gives is looked up with --resolve.
            (
                &["x.example:83:127.0.0.7"],
                &[":8000:x.example:83"],
                "127.0.0.7:83",
            ),
        ] {
            let target = route(resolve, connect_to)
                .unwrap()
                .target(&url, LIMIT)
                .await;
            let target = target.unwrap();
            assert_eq!(
                target.address.to_string(),
                address,
                "{resolve:?} {connect_to:?}"
            );
            assert_eq!(target.host, "App.example:8000");
            assert_eq!(target.path, "/path");
        }
        let unix = Route {
            unix: Some("/run/server".into()),
            ..route(&[], &[]).unwrap()
        };
        let target = unix.target(&url, LIMIT).await.unwrap();
        assert_eq!(target.address, Address::Unix("/run/server".into()));
    }

    #[test]
    fn what_is_no_host_port_or_address_is_refused() {
        for bad in [
            "",
            "host",
            "host:80",
            "host:80:",
            "host:x:127.0.0.1",
            ":80:127.0.0.1",
            "host:80:host",
        ] {
            assert!(route(&[bad], &[]).is_none(), "{bad}");
        }
        for bad in ["", "a:80", "a:80:b", "a:x:b:80", "a:80:b:x"] {
            assert!(route(&[], &[bad]).is_none(), "{bad}");
        }
    }
}
