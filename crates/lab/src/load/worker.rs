use std::sync::Arc;
use std::time::Duration;

use rstlab_wire::{Failure, Phase, Seen};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep, timeout};

use super::Plan;
use super::link::{Link, SoFar};
use super::outcome::{Outcome, Sample, Trouble};
use super::pace::Pace;

/// Pause after a connection that did not come about: refusals cost nothing, and would otherwise be all that
/// a run does.
const AFTER_REFUSAL: Duration = Duration::from_millis(10);

/// What a worker tells while it works.
#[derive(Debug)]
pub(super) enum Event {
    /// A request has its outcome.
    Done(Sample),
    /// A reset came on a connection whose responses had all been whole.
    LateReset(Failure),
    /// A request goes out a second time: the kept connection ended before it reached the server.
    SentAgain,
}

/// What the workers share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) plan: Plan,
    pub(super) pace: Pace,
    /// One permit for each connection that is still watched after its last response.
    pub(super) watchers: Arc<Semaphore>,
}

/// Sends one request after the other over one connection at a time.
pub(super) struct Worker {
    pub(super) shared: Arc<Shared>,
    pub(super) events: mpsc::Sender<Event>,
    /// The connection that the server keeps open for us.
    pub(super) kept: Option<Link>,
}

impl Worker {
    /// Works until the plan is done, or the order to stop comes: a request that then runs is not counted.
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
        let mut so_far = SoFar::default();
        let exchange = self.exchange(&shared.plan, &mut so_far);
        let result = timeout(shared.plan.timeout, exchange).await;
        let latency = start.elapsed();
        let (result, link) = match result {
            Ok(Ok(link)) => (Ok(()), Some(link)),
            Ok(Err(trouble)) => (Err(trouble), None),
            Err(_) => (Err(Trouble::TimeLimit), None),
        };
        let sample = Sample::new(&so_far, result, latency);
        let refused = matches!(sample.outcome, Outcome::Refused(_));
        let reset = sample.failure.is_some();
        tell(&self.events, Event::Done(sample)).await;
        match link {
            Some(link) if !reset => self.keep_or_watch(link).await,
            Some(_) | None => {}
        }
        if refused {
            sleep(AFTER_REFUSAL).await;
        }
    }

    /// One exchange, on the kept connection if it still stands.
    async fn exchange(&mut self, plan: &Plan, so_far: &mut SoFar) -> Result<Link, Trouble> {
        if let Some(mut link) = self.kept_and_open().await {
            *so_far = link.so_far();
            match link.exchange(plan, so_far).await {
                Ok(()) => return Ok(link),
                Err(error) if !may_send_again(plan, so_far) => return Err(Trouble::Http(error)),
                Err(_) => {
                    tell(&self.events, Event::SentAgain).await;
                    tell_late_reset(&self.events, link.seen()).await;
                }
            }
        }
        *so_far = SoFar::default();
        let mut link = Link::open(plan).await.map_err(Trouble::Connect)?;
        *so_far = link.so_far();
        match link.exchange(plan, so_far).await {
            Ok(()) => Ok(link),
            Err(error) => Err(Trouble::Http(error)),
        }
    }

    /// A server may close a connection between two requests at any time (RFC 9112 §9.5): that is no failure.
    async fn kept_and_open(&mut self) -> Option<Link> {
        let mut link = self.kept.take()?;
        if link.is_open().await {
            return Some(link);
        }
        tell_late_reset(&self.events, link.seen()).await;
        None
    }

    /// After a whole response: the connection is kept if the server keeps it, else watched to its end.
    async fn keep_or_watch(&mut self, mut link: Link) {
        if link.settle().await {
            self.kept = Some(link);
            return;
        }
        // The semaphore is never closed.
        let permit = Arc::clone(&self.shared.watchers).acquire_owned().await;
        let events = self.events.clone();
        tokio::spawn(async move {
            if let Some(reset) = link.watch().await {
                tell(&events, Event::LateReset(reset)).await;
            }
            drop(permit);
        });
    }
}

async fn tell(events: &mpsc::Sender<Event>, event: Event) {
    // If the run was dropped, nobody counts any more.
    let _ = events.send(event).await;
}

async fn tell_late_reset(events: &mpsc::Sender<Event>, seen: &Seen) {
    if let Some(reset) = seen.reset() {
        tell(events, Event::LateReset(reset)).await;
    }
}

/// Whether a request that failed on a kept connection may go out again on a fresh one: no byte of an answer
/// came, and either the kernel took no byte of the request or the method is idempotent (RFC 9112 §9.3.1).
fn may_send_again(plan: &Plan, so_far: &SoFar) -> bool {
    let Some(seen) = &so_far.seen else {
        return false;
    };
    // Still the account of the exchange before: this request was never begun.
    let not_begun = seen.phase() == Phase::AfterResponse;
    let idempotent = plan.body_bytes.is_none();
    not_begun || (seen.read_bytes() == 0 && (idempotent || seen.written_bytes() == 0))
}
