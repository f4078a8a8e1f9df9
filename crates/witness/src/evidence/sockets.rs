//! What the two sockets of a connection showed.

use rstlab_wire::Failure;
use rstlab_wire::close::Closed;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the client's socket showed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClientSide {
    /// The call that told of a RST.
    pub reset: Option<Failure>,
    /// Bytes of this request that the kernel took.
    pub written_bytes: u64,
    /// Time between the last write and the write before it, in nanoseconds.
    pub pause_ns: u64,
    /// Bytes of its response that came, heads included.
    pub read_bytes: u64,
    /// The response was whole.
    pub response_whole: bool,
    /// The connection had carried an exchange before.
    pub reused: bool,
}

/// What the server's socket showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ServerSide {
    /// Its queues and its peer right before the close.
    pub closed: Closed,
    /// The server closed with `SO_LINGER` zero.
    pub linger_zero: bool,
    /// The process that answered was killed.
    pub killed: bool,
    /// Everything that was announced to the client was sent.
    pub response_whole: bool,
}
