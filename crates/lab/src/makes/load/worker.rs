//! A worker of a load: sends one request after the other and watches connections for a late reset.

use std::sync::Arc;
use std::time::Duration;

use rstlab_wire::{Failure, Phase, SharedSeen};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep, timeout};

use super::LoadPlan;
use super::connection::{ExchangeSoFar, LoadConnection};
use super::outcome::{ExchangeError, RequestOutcome, Sample};
use super::pace::Pace;

/// Pause after a refused connection: refusals take no time, and without a pause a run would make hardly anything
/// else.
const AFTER_REFUSAL: Duration = Duration::from_millis(10);

/// What a worker reports while it works.
#[derive(Debug)]
pub(super) enum WorkerEvent {
    /// A request has its outcome.
    Done(Sample),
    /// A reset came on a connection after its responses, which were all whole.
    LateReset(Failure),
    /// A request goes out a second time: its kept connection ended before the request reached the server.
    SentAgain,
}

/// What the workers share.
#[derive(Debug)]
pub(super) struct RunShared {
    pub(super) plan: LoadPlan,
    pub(super) pace: Pace,
    /// One permit for each connection that is still watched after its last response.
    pub(super) watchers: Arc<Semaphore>,
}

/// Sends one request after the other over one connection at a time.
pub(super) struct Worker {
    pub(super) shared: Arc<RunShared>,
    pub(super) events: mpsc::Sender<WorkerEvent>,
    /// The connection that the server keeps open for the next request.
    pub(super) kept: Option<LoadConnection>,
}

impl Worker {
    /// Works until the plan is done or the order to stop comes. A request that is under way then is not counted.
    pub(super) async fn work(mut self) {
        let shared = Arc::clone(&self.shared);
        while let Some(start) = shared.pace.next().await {
            tokio::select! {
                biased;
                () = self.one(start) => {}
                () = shared.pace.stop().cancelled() => return shared.pace.cut(),
            }
        }
    }

    async fn one(&mut self, start: Instant) {
        let shared = Arc::clone(&self.shared);
        let mut so_far = ExchangeSoFar::default();
        let exchange = self.exchange(&shared.plan, &mut so_far);
        let result = timeout(shared.plan.timeout, exchange).await;
        let latency = start.elapsed();
        let (result, link) = match result {
            Ok(Ok(link)) => (Ok(()), Some(link)),
            Ok(Err(trouble)) => (Err(trouble), None),
            Err(_) => (Err(ExchangeError::TimeLimit), None),
        };
        let sample = Sample::new(&so_far, result, latency);
        let refused = matches!(sample.outcome, RequestOutcome::Refused(_));
        let reset = sample.failure.is_some();
        tell(&self.events, WorkerEvent::Done(sample)).await;
        match link {
            Some(link) if !reset => self.keep_or_watch(link).await,
            Some(_) | None => {}
        }
        if refused {
            sleep(AFTER_REFUSAL).await;
        }
    }

    /// One exchange, on the kept connection if that is still open.
    async fn exchange(
        &mut self,
        plan: &LoadPlan,
        so_far: &mut ExchangeSoFar,
    ) -> Result<LoadConnection, ExchangeError> {
        if let Some(mut link) = self.kept_and_open().await {
            *so_far = link.so_far();
            match link.exchange(plan, so_far).await {
                Ok(()) => return Ok(link),
                Err(error) if !may_send_again(plan, so_far) => {
                    return Err(ExchangeError::Http(error));
                }
                Err(_) => {
                    tell(&self.events, WorkerEvent::SentAgain).await;
                    tell_late_reset(&self.events, link.seen()).await;
                }
            }
        }
        *so_far = ExchangeSoFar::default();
        let mut link = LoadConnection::open(plan)
            .await
            .map_err(ExchangeError::Connect)?;
        *so_far = link.so_far();
        match link.exchange(plan, so_far).await {
            Ok(()) => Ok(link),
            Err(error) => Err(ExchangeError::Http(error)),
        }
    }

    /// The kept connection, if the server has not closed it. A server may do so between two requests at any time
    /// (RFC 9112 §9.5): that is no failure.
    async fn kept_and_open(&mut self) -> Option<LoadConnection> {
        let mut link = self.kept.take()?;
        if link.is_open().await {
            return Some(link);
        }
        tell_late_reset(&self.events, link.seen()).await;
        None
    }

    /// Keeps a connection after a whole response if the server keeps it, else watches it until it ends.
    async fn keep_or_watch(&mut self, mut link: LoadConnection) {
        if link.settle().await {
            self.kept = Some(link);
            return;
        }
        // The semaphore is never closed.
        let permit = Arc::clone(&self.shared.watchers).acquire_owned().await;
        let events = self.events.clone();
        tokio::spawn(async move {
            if let Some(reset) = link.watch().await {
                tell(&events, WorkerEvent::LateReset(reset)).await;
            }
            drop(permit);
        });
    }
}

async fn tell(events: &mpsc::Sender<WorkerEvent>, event: WorkerEvent) {
    // The receiver is gone only if the run was dropped.
    let _ = events.send(event).await;
}

async fn tell_late_reset(events: &mpsc::Sender<WorkerEvent>, seen: &SharedSeen) {
    if let Some(reset) = seen.look(|seen| seen.reset()) {
        tell(events, WorkerEvent::LateReset(reset)).await;
    }
}

/// Whether a request that failed on a kept connection may go out again on a fresh connection: no byte of an answer
/// came, and either the kernel took no byte of the request or the method is idempotent (RFC 9112 §9.3.1).
fn may_send_again(plan: &LoadPlan, so_far: &ExchangeSoFar) -> bool {
    let Some(seen) = &so_far.seen else {
        return false;
    };
    // The account is still of the exchange before, because no byte of this request was written.
    let (phase, read, written) =
        seen.look(|seen| (seen.phase(), seen.read_bytes(), seen.written_bytes()));
    let not_begun = phase == Phase::AfterResponse;
    let idempotent = plan.body_bytes.is_none();
    not_begun || (read == 0 && (idempotent || written == 0))
}
