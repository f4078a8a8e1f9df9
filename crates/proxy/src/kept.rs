//! Upstream connections between two requests: how they come to the pool, and how they leave it.

use std::sync::Arc;

use rstlab_wire::Call;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::pool::{Idle, Left};
use crate::report::{Exchange, Outcome};
use crate::upstream::{self, Shared};

impl Shared {
    /// Keeps the connection of an exchange that has ended well, for the next request. Closes it if none are kept
    /// any more.
    pub(crate) fn keep(&self, stream: TcpStream, exchange: Arc<Exchange>) {
        let Some(pool) = &self.pool else {
            return;
        };
        let request = exchange.request;
        let surplus = pool.put(stream, exchange);
        tracing::debug!(request, "upstream connection kept");
        if let Some(surplus) = surplus {
            self.close(surplus, "too many are idle");
        }
    }

    /// A connection that was kept, if there is one.
    pub(crate) fn take_kept(&self) -> Option<TcpStream> {
        let idle = self.pool.as_ref()?.take()?;
        // Nothing happened to it while it was idle.
        self.finish(&idle.exchange, Outcome::Whole);
        Some(idle.stream)
    }

    fn close(&self, idle: Idle, why: &str) {
        // Nothing lies unread: that would have been seen.
        drop(idle.stream);
        let request = idle.exchange.request;
        tracing::debug!(request, "kept upstream connection closed: {why}");
        self.finish(&idle.exchange, Outcome::Whole);
    }

    /// Reads what came on a connection, to its FIN or RST if they come in time, so that nothing lies unread.
    async fn read_and_close(self: Arc<Self>, idle: Idle) {
        let request = idle.exchange.request;
        tracing::debug!(
            request,
            "kept upstream connection given up: FIN or bytes came"
        );
        if let Ok(_slot) = self.watchers.try_acquire() {
            upstream::watch(idle.stream, &idle.exchange).await;
        }
        self.finish(&idle.exchange, Outcome::Whole);
    }
}

/// Watches the connections that are kept, and closes them when `stop` is cancelled.
pub(crate) async fn watch(shared: Arc<Shared>, stop: CancellationToken) {
    let Some(pool) = &shared.pool else {
        return;
    };
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            left = pool.left() => match left {
                Left::Readable(idle) => {
                    shared.tasks.spawn(Arc::clone(&shared).read_and_close(idle));
                }
                Left::Failed(idle, error) => {
                    idle.exchange.seen.failed(Call::Recv, &error);
                    shared.close(idle, "it failed");
                }
                Left::Expired(idle) => shared.close(idle, "idle for too long"),
            }
        }
    }
    for idle in pool.close() {
        shared.close(idle, "stopping");
    }
}
