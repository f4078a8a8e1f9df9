//! What known clients do on the wire, for `--as`: how they write, what they say about the connection, and what they do when
//! a write fails. docs/check.md names where each row comes from.

use std::time::Duration;

use super::trial::{ConnectionUse, Model};

/// A client that a check plays in place of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImitatedClient {
    /// Its name, as `--as` takes it.
    pub name: &'static str,
    /// It asks with HTTP/1.0.
    pub(super) http_1_0: bool,
    /// What its requests say about the connection.
    pub(super) connection: ConnectionUse,
    /// Which bytes of a body go out in one write with the head.
    with_head: WithHead,
    /// Pause between a head that goes out alone and the body.
    pub(super) gap: Duration,
    /// The longest write of a body, in bytes.
    pub(super) max_write: usize,
    /// It gives up when a write fails; otherwise it reads on.
    pub(super) stops: bool,
    /// A body of more than so many bytes is announced with `Expect: 100-continue`.
    expects_above: Option<u64>,
}

/// Which bytes of a body go out in one write with the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WithHead {
    /// None.
    Nothing,
    /// Up to so many bytes, of every body.
    Beginning(u64),
    /// All of a body of up to so many bytes, and none of a longer one.
    WholeUpTo(u64),
}

const KIB: u64 = 1024;

/// A proxy gets the body from its own client a little after the head.
const BODY_COMES_LATER: Duration = Duration::from_millis(1);

/// A client that is like most: HTTP/1.1, connections kept, the head alone, 16 KiB a write, and no reading after a failed
/// write.
const USUAL: ImitatedClient = ImitatedClient {
    name: "",
    http_1_0: false,
    connection: ConnectionUse::Kept,
    with_head: WithHead::Nothing,
    gap: BODY_COMES_LATER,
    max_write: 16 * 1024,
    stops: true,
    expects_above: None,
};

/// The clients.
pub(super) static CLIENTS: [ImitatedClient; 10] = [
    ImitatedClient {
        name: "nginx",
        http_1_0: true,
        connection: ConnectionUse::Close,
        with_head: WithHead::Beginning(8 * KIB),
        max_write: 8 * 1024,
        ..USUAL
    },
    ImitatedClient {
        name: "nginx-unbuffered",
        connection: ConnectionUse::Close,
        max_write: 8 * 1024,
        ..USUAL
    },
    ImitatedClient {
        name: "haproxy",
        with_head: WithHead::WholeUpTo(15 * KIB),
        max_write: 16_320,
        ..USUAL
    },
    ImitatedClient {
        name: "envoy",
        ..USUAL
    },
    ImitatedClient {
        name: "traefik",
        max_write: 32 * 1024,
        ..USUAL
    },
    ImitatedClient {
        name: "apache",
        with_head: WithHead::Beginning(16 * KIB),
        ..USUAL
    },
    ImitatedClient {
        name: "caddy",
        max_write: 32 * 1024,
        ..USUAL
    },
    ImitatedClient {
        name: "alb",
        ..USUAL
    },
    ImitatedClient {
        name: "curl",
        with_head: WithHead::WholeUpTo(64 * KIB),
        gap: Duration::ZERO,
        max_write: 64 * 1024,
        expects_above: Some(KIB * KIB),
        ..USUAL
    },
    ImitatedClient {
        name: "browser",
        with_head: WithHead::WholeUpTo(1000),
        gap: Duration::ZERO,
        stops: false,
        ..USUAL
    },
];

impl ImitatedClient {
    /// The scenarios that such a client plays.
    pub(super) const fn scenarios(&self) -> &'static [&'static str] {
        match self.connection {
            ConnectionUse::Kept => &["body-with-head", "body-large", "keep-alive", "early-answer"],
            ConnectionUse::Close => &["body-with-head", "body-large", "early-answer"],
        }
    }

    /// Whether it is played by this model: one that reads at once, and one that reads late.
    pub(super) fn is_played_by(&self, model: Model) -> bool {
        match model {
            Model::Ordinary => true,
            Model::ReadsOn => !self.stops,
            Model::StopsAtWriteError => self.stops,
        }
    }

    /// How many of a body's bytes go out in one write with the head.
    pub(super) fn bytes_with_head(&self, body: u64) -> u64 {
        match self.with_head {
            _ if self.expects_continue(body) => 0,
            WithHead::Nothing => 0,
            WithHead::Beginning(most) => body.min(most),
            WithHead::WholeUpTo(most) if body <= most => body,
            WithHead::WholeUpTo(_) => 0,
        }
    }

    /// Whether a request with such a body has `Expect: 100-continue`.
    pub(super) fn expects_continue(&self, body: u64) -> bool {
        self.expects_above.is_some_and(|most| body > most)
    }
}
