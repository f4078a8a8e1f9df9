//! The types in which kernel, packets, counters and sockets tell of a connection; they do not depend on who fills
//! them.

mod counters;
mod ending;
mod event;
mod kernel_word;
mod level;
mod pair;
mod process;
mod reason;
mod side;
mod sockets;

use rstlab_wire::close::Peer;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use counters::{Counted, Counters};
pub use ending::Ending;
pub use event::{Event, Lane, What};
pub use kernel_word::{KernelClose, KernelReset, KernelWord};
pub use level::Level;
pub use pair::Pair;
pub(crate) use pair::canonical;
pub use process::Process;
pub use reason::{Reason, State};
pub use side::{Place, Side};
pub use sockets::{ClientSide, ServerSide};

/// What is known of a connection's end, from the weakest kind of evidence to the strongest. A kind of evidence is null
/// if nobody asked for it or nobody could see it.
///
/// *Client* is the side that connected (the proxy), *server* the one that accepted (the upstream).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Evidence {
    /// The client's socket.
    pub client: Option<ClientSide>,
    /// The server's socket, if the server tells.
    pub server: Option<ServerSide>,
    /// The counters of the namespace.
    pub counted: Option<Counted>,
    /// The packets.
    pub packets: Option<Ending>,
    /// The kernel's trace.
    pub kernel: Option<KernelWord>,
}

impl Evidence {
    /// Whether the client, the server, the packets or the kernel tell of a RST.
    pub fn reset_was_seen(&self) -> bool {
        self.client.is_some_and(|client| client.reset.is_some())
            || matches!(self.packets, Some(Ending::Reset { .. }))
            || self
                .kernel
                .as_ref()
                .is_some_and(|kernel| kernel.reset.is_some())
            || self.server_was_reset()
    }

    /// Whether a RST had come to the server when it closed.
    pub(crate) fn server_was_reset(&self) -> bool {
        self.server
            .is_some_and(|server| server.closed.peer == Peer::Reset)
    }

    /// Whether a RST was seen, or the server knows of one that it must have sent or of a response that it cut.
    pub fn is_conclusive(&self) -> bool {
        self.reset_was_seen()
            || self.server.is_some_and(|server| {
                server.closed.unread_bytes > 0 || server.linger_zero || !server.response_whole
            })
    }
}
