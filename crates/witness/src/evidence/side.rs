//! The two ends of a connection, and the place of a RST among those of its connection.

use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{Display, IntoStaticStr};

/// One end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// Who connected: the proxy.
    Client,
    /// Who accepted: the upstream.
    Server,
}

impl Side {
    /// The side with that address, of a connection that `server` accepted.
    pub fn of(address: SocketAddr, server: SocketAddr) -> Self {
        match address == server {
            true => Side::Server,
            false => Side::Client,
        }
    }
}

/// Whether a RST decided its connection.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, JsonSchema, Display, IntoStaticStr,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum Place {
    /// The first RST: it ended the connection, so its reason is the cause.
    First,
    /// A later RST, for a connection that had already been reset.
    Echo,
}
