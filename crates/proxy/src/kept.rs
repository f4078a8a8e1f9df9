//! Gives upstream connections to the pool, and ends those that leave the pool without a request.

use std::net::SocketAddr;
use std::sync::Arc;

use rstlab_wire::{Call, Slot};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::exchange::Finished;
use crate::pool::{Idle, Left, Pool};
use crate::upstream::Shared;

impl Shared {
    /// Keeps the connection of an exchange that has ended well, for the next request; a closed pool closes it.
    pub(crate) fn keep(&self, pool: &Pool, stream: TcpStream, mut finished: Finished) {
        finished.exchange.locate(&stream);
        let request = finished.exchange.number;
        let surplus = pool.put(stream, finished);
        tracing::debug!(request, "upstream connection kept");
        if let Some(surplus) = surplus {
            self.close(surplus, "too many are idle");
        }
    }

    /// A kept connection with its slot and its other end, if there is a usable one. That ends the connection's last
    /// exchange: nothing happened to the connection while it was idle.
    pub(crate) fn take_kept(self: &Arc<Self>) -> Option<(TcpStream, Option<Slot>, SocketAddr)> {
        let pool = self.pool.as_ref()?;
        loop {
            match pool.take()? {
                Ok(mut idle) => {
                    let exchange = &mut idle.finished.exchange;
                    let (slot, server) = (exchange.slot.take(), exchange.server);
                    self.end(idle.finished);
                    return Some((idle.stream, slot, server?));
                }
                Err(left) => self.give_up(left),
            }
        }
    }

    /// Ends a connection that left the pool without a request.
    fn give_up(self: &Arc<Self>, left: Left) {
        match left {
            Left::Readable(idle) => {
                self.tasks.spawn(Arc::clone(self).read_and_close(idle));
            }
            Left::Failed(mut idle, error) => {
                idle.finished.seen.failed(Call::Recv, &error);
                self.close(idle, "it failed");
            }
            Left::Expired(idle) => self.close(idle, "idle for too long"),
        }
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
            idle.finished.watch(idle.stream, &self.abandon).await;
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
            left = pool.left() => shared.give_up(left),
        }
    }
    for idle in pool.close() {
        shared.close(idle, "stopping");
    }
}
