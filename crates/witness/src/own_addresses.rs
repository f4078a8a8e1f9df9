//! Tells the addresses of this network namespace from others.

use std::collections::HashSet;
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use nix::ifaddrs::getifaddrs;

/// The addresses are read again after this time, because they come and go.
const FRESH: Duration = Duration::from_secs(1);

/// The addresses of this network namespace.
#[derive(Debug, Default)]
pub struct OwnAddresses {
    known: HashSet<IpAddr>,
    looked: Option<Instant>,
}

impl OwnAddresses {
    /// Whether `ip` is one of them; false if the addresses cannot be read.
    pub fn has(&mut self, ip: IpAddr) -> bool {
        if ip.is_loopback() {
            return true;
        }
        if self.looked.is_none_or(|looked| looked.elapsed() >= FRESH) {
            self.known = addresses().unwrap_or_default();
            self.looked = Some(Instant::now());
        }
        self.known.contains(&ip)
    }
}

fn addresses() -> io::Result<HashSet<IpAddr>> {
    let all = getifaddrs()?.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|it| it.ip().into());
        v4.or_else(|| address.as_sockaddr_in6().map(|it| it.ip().into()))
    });
    Ok(all.collect())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn own_addresses_are_told_from_others() {
        let mut own = OwnAddresses::default();
        assert!(addresses().unwrap().contains(&Ipv4Addr::LOCALHOST.into()));
        for ip in addresses().unwrap() {
            assert!(own.has(ip), "{ip}");
        }
        assert!(own.has("127.0.0.9".parse().unwrap()));
        // For documentation (RFC 5737, RFC 3849).
        for other in ["192.0.2.1", "2001:db8::1"] {
            assert!(!own.has(other.parse().unwrap()));
        }
    }
}
