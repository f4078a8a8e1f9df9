//! The file descriptors that a process has for connections: who has them, and which idle client gives one up.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::{monotonic_now, nanos};

/// Limit of how often the log says that descriptors run short.
const TELL_AGAIN: Duration = Duration::from_secs(1);

/// The descriptors for connections. All workers of a process share them: clones are the same descriptors.
///
/// Each connection has one slot. If there is none for a new connection, the client that has been idle for longest is
/// ordered to close, as nginx does with its reusable connections (`ngx_drain_connections`).
#[derive(Debug, Clone)]
pub struct Slots(Arc<SharedSlots>);

#[derive(Debug)]
struct SharedSlots {
    limit: usize,
    free: Arc<Semaphore>,
    /// The rest of `free` is for other connections: clients that all wait for such a connection would wait for ever.
    for_clients: Arc<Semaphore>,
    shortage: Mutex<Shortage>,
    clients: AtomicU64,
}

#[derive(Debug, Default)]
struct Shortage {
    /// By the time since when they are idle, and by number.
    idle: BTreeMap<(u64, u64), Arc<CloseOrder>>,
    /// Connections that wait for a descriptor.
    waiting: usize,
    /// Clients that are ordered to close, and have not closed yet.
    closing: usize,
    /// Clients that were ordered to close since the log said so.
    ordered: usize,
    told: Option<Instant>,
}

/// The order to a client's connection to close.
#[derive(Debug, Default)]
struct CloseOrder {
    given: AtomicBool,
    news: Notify,
}

/// The descriptor of one connection, or those of a pipe. Dropped, it is free.
#[derive(Debug)]
pub struct Slot {
    _permit: OwnedSemaphorePermit,
}

/// The descriptor of a client's connection, and whether the client is idle. Dropped, it is free.
#[derive(Debug)]
pub struct ClientSlot {
    slots: Slots,
    /// `None`: accepted although there is no room.
    _permits: Option<(Slot, Slot)>,
    number: u64,
    /// In nanoseconds; 0: not idle.
    idle_since: AtomicU64,
    order: Arc<CloseOrder>,
}

impl Slots {
    /// As many descriptors as `limit`; clients get all but `reserved`.
    pub fn new(limit: usize, reserved: usize) -> Self {
        let semaphore =
            |permits: usize| Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)));
        Self(Arc::new(SharedSlots {
            limit,
            free: semaphore(limit),
            for_clients: semaphore(limit.saturating_sub(reserved)),
            shortage: Mutex::default(),
            clients: AtomicU64::new(0),
        }))
    }

    /// Waits for a descriptor of a connection that is no client's, for `limit` at most.
    pub async fn other(&self, limit: Duration) -> Option<Slot> {
        match Arc::clone(&self.0.free).try_acquire_owned() {
            Ok(permit) => Some(Slot { _permit: permit }),
            Err(_) => timeout(limit, self.slot(&self.0.free)).await.ok()?,
        }
    }

    /// The two descriptors of a pipe, if they are free.
    pub fn pipe(&self) -> Option<Slot> {
        let permits = Arc::clone(&self.0.free).try_acquire_many_owned(2);
        permits.ok().map(|permit| Slot { _permit: permit })
    }

    /// Waits for the descriptor of a client's connection that is about to be accepted.
    pub(crate) async fn client(&self) -> ClientSlot {
        // The semaphores are never closed.
        let own = self.slot(&self.0.for_clients).await;
        let permits = own.zip(self.slot(&self.0.free).await);
        self.client_with(permits)
    }

    /// For a client that must be accepted.
    pub(crate) fn client_at_once(&self) -> ClientSlot {
        self.client_with(None)
    }

    fn client_with(&self, permits: Option<(Slot, Slot)>) -> ClientSlot {
        ClientSlot {
            slots: self.clone(),
            _permits: permits,
            number: self.0.clients.fetch_add(1, Ordering::Relaxed),
            idle_since: AtomicU64::new(0),
            order: Arc::default(),
        }
    }

    async fn slot(&self, of: &Arc<Semaphore>) -> Option<Slot> {
        let permit = match Arc::clone(of).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                let _waiting = WaitingForSlot::new(self);
                Arc::clone(of).acquire_owned().await.ok()?
            }
        };
        Some(Slot { _permit: permit })
    }

    fn shortage(&self) -> MutexGuard<'_, Shortage> {
        // No code panics while it holds the lock.
        self.0
            .shortage
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shortage {
    /// Orders one idle client to close for each connection that waits.
    fn order(&mut self) {
        while self.closing < self.waiting
            && let Some((_, order)) = self.idle.pop_first()
        {
            order.given.store(true, Ordering::Relaxed);
            order.news.notify_one();
            self.closing += 1;
            self.ordered += 1;
        }
    }

    fn tell(&mut self, slots: &SharedSlots) {
        if self.told.is_some_and(|told| told.elapsed() < TELL_AGAIN) {
            return;
        }
        self.told = Some(Instant::now());
        tracing::warn!(
            descriptors = slots.limit,
            free = slots.free.available_permits(),
            waiting = self.waiting,
            closed_idle = std::mem::take(&mut self.ordered),
            "file descriptors run short: idle clients are closed, new ones wait. Raise the limit: `ulimit -n` in a shell, \
             LimitNOFILE= in a systemd unit, --ulimit nofile= of docker run"
        );
    }
}

/// A connection that waits for a descriptor.
struct WaitingForSlot<'a>(&'a Slots);

impl<'a> WaitingForSlot<'a> {
    fn new(slots: &'a Slots) -> Self {
        let mut shortage = slots.shortage();
        shortage.waiting += 1;
        shortage.order();
        shortage.tell(&slots.0);
        Self(slots)
    }
}

impl Drop for WaitingForSlot<'_> {
    fn drop(&mut self) {
        self.0.shortage().waiting -= 1;
    }
}

impl ClientSlot {
    /// No request is here, and none has begun to arrive: the client may be ordered to close.
    pub fn idle(&self) {
        if self.is_idle() {
            return;
        }
        let now = nanos(monotonic_now()).max(1);
        self.idle_since.store(now, Ordering::Relaxed);
        let mut shortage = self.slots.shortage();
        shortage
            .idle
            .insert((now, self.number), Arc::clone(&self.order));
        shortage.order();
    }

    /// A request begins to arrive.
    pub fn busy(&self) {
        let since = self.idle_since.load(Ordering::Relaxed);
        if since > 0 {
            self.idle_since.store(0, Ordering::Relaxed);
            self.slots.shortage().idle.remove(&(since, self.number));
        }
    }

    /// Whether the client is idle.
    pub fn is_idle(&self) -> bool {
        self.idle_since.load(Ordering::Relaxed) > 0
    }

    /// Waits for the order to close.
    pub async fn ordered_to_close(&self) {
        self.order.news.notified().await;
    }

    /// A request came before the order to close: another client is ordered in this one's place.
    pub fn stays(&self) {
        if self.order.given.swap(false, Ordering::Relaxed) {
            let mut shortage = self.slots.shortage();
            shortage.closing -= 1;
            shortage.order();
        }
    }
}

impl Drop for ClientSlot {
    fn drop(&mut self) {
        self.busy();
        if self.order.given.load(Ordering::Relaxed) {
            self.slots.shortage().closing -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    fn client(slots: &Slots) -> ClientSlot {
        slots.client().now_or_never().expect("a free slot")
    }

    fn is_ordered(client: &ClientSlot) -> bool {
        client.ordered_to_close().now_or_never().is_some()
    }

    #[tokio::test]
    async fn the_client_that_is_idle_for_longest_gives_up_its_descriptor() {
        let slots = Slots::new(4, 1);
        let [first, second, third] = [(); 3].map(|()| client(&slots));
        second.idle();
        first.idle();
        third.idle();
        // The second is not the one that is idle for longest any more.
        second.busy();
        second.idle();
        let mut next = std::pin::pin!(slots.client());
        assert!(next.as_mut().now_or_never().is_none(), "no slot is free");
        assert!(is_ordered(&first) && !is_ordered(&second) && !is_ordered(&third));
        drop(first);
        next.now_or_never().expect("the slot of the first");
    }

    #[tokio::test]
    async fn a_client_with_a_request_keeps_its_descriptor_and_the_next_idle_one_gives_up_its_own() {
        let slots = Slots::new(4, 1);
        let [first, second, third] = [(); 3].map(|()| client(&slots));
        first.idle();
        second.idle();
        let mut next = std::pin::pin!(slots.client());
        assert!(next.as_mut().now_or_never().is_none());
        // The request comes before the order.
        for (busy, other) in [(&first, &second), (&second, &third)] {
            busy.busy();
            assert!(is_ordered(busy) && !busy.is_idle() && !is_ordered(other));
            busy.stays();
        }
        assert!(!is_ordered(&third), "it is busy");
        third.idle();
        assert!(is_ordered(&third));
        first.idle();
        assert!(!is_ordered(&first), "one is enough");
        drop(third);
        next.now_or_never().expect("the slot of the third");
    }

    #[tokio::test(start_paused = true)]
    async fn clients_leave_descriptors_for_other_connections_and_those_make_idle_clients_close() {
        let slots = Slots::new(3, 1);
        let limit = Duration::from_secs(5);
        let [first, _second] = [(); 2].map(|()| client(&slots));
        let other = slots.other(limit).await.expect("the reserved one");
        assert!(slots.other(limit).await.is_none());
        let mut more = std::pin::pin!(slots.other(limit));
        assert!(more.as_mut().now_or_never().is_none());
        first.idle();
        assert!(is_ordered(&first));
        drop(first);
        assert!(more.await.is_some());
        drop(other);
    }
}
