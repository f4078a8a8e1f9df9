//! The two ends of a connection, whichever is named first.

use std::net::SocketAddr;

/// The two ends of a connection, whichever is named first.
///
/// An IPv4-mapped address is the IPv4 address it stands for: a dual-stack socket and the wire name the same peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pair {
    low: SocketAddr,
    high: SocketAddr,
}

impl Pair {
    /// The connection between `a` and `b`.
    pub fn new(a: SocketAddr, b: SocketAddr) -> Self {
        let (a, b) = (canonical(a), canonical(b));
        Self {
            low: a.min(b),
            high: a.max(b),
        }
    }
}

/// An IPv4-mapped address as IPv4, without scope and flow.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_the_same_in_both_directions_and_both_spellings() {
        let [server, client, mapped] = ["127.0.0.1:80", "127.0.0.1:4000", "[::ffff:127.0.0.1]:80"]
            .map(|text| text.parse().unwrap());
        assert_eq!(Pair::new(server, client), Pair::new(client, mapped));
    }
}
