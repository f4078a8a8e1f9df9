//! Gives upstream connections to the pool, and ends those that leave the pool without a request.

use std::sync::Arc;

use rstlab_wire::Call;
use rstlab_witness::Connection;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::exchange::Finished;
use crate::pool::{Idle, Left, Pool};
use crate::upstream::{self, Shared};

impl Shared {
    /// Keeps the connection of an exchange that has ended well, for the next request; a closed pool closes it.
    pub(crate) fn keep(&self, pool: &Pool, stream: TcpStream, finished: Finished) {
        let request = finished.exchange.number;
        let surplus = pool.put(stream, finished);
        tracing::debug!(request, "upstream connection kept");
        if let Some(surplus) = surplus {
            self.close(surplus, "too many are idle");
        }
    }

    /// A kept connection and its two ends, if there is one. That ends the connection's last exchange: nothing happened
    /// to the connection while it was idle.
    pub(crate) fn take_kept(&self) -> Option<(TcpStream, Option<Connection>)> {
        let idle = self.pool.as_ref()?.take()?;
        let ends = idle.finished.exchange.connection;
        self.end(idle.finished);
        Some((idle.stream, ends))
    }

    fn close(&self, idle: Idle, why: &str) {
        // Nothing lies unread: [`Pool::left`] would have seen it.
        drop(idle.stream);
        let request = idle.finished.exchange.number;
        tracing::debug!(request, "kept upstream connection closed: {why}");
        self.end(idle.finished);
    }

    /// Reads what came on a connection, up to its FIN or RST if one comes in time, so that the close is no RST.
    async fn read_and_close(self: Arc<Self>, mut idle: Idle) {
        let request = idle.finished.exchange.number;
        tracing::debug!(
            request,
            "kept upstream connection given up: FIN or bytes came"
        );
        if let Ok(_slot) = self.watchers.try_acquire() {
            idle.finished.seen = upstream::watch(idle.stream, idle.finished.seen).await;
        }
        self.end(idle.finished);
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
                Left::Failed(mut idle, error) => {
                    idle.finished.seen.failed(Call::Recv, &error);
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
