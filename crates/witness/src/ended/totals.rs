//! Counts ends by cause, certainty, outcome and phase.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rstlab_wire::Phase;
use serde::Serialize;

use super::{Ended, Outcome};
use crate::verdict::{Cause, Known};

/// The counters of all exchanges that ended in a program. Each worker counts for itself.
#[derive(Debug, Default)]
pub struct Totals {
    own: Mutex<BTreeMap<Labels, Total>>,
    workers: Mutex<Vec<Arc<Totals>>>,
}

/// The labels of one counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Labels {
    /// Why the exchanges ended so, if there was something to explain.
    pub cause: Option<Cause>,
    /// How the cause is known.
    pub known: Option<Known>,
    /// What the exchanges brought their clients.
    pub outcome: Outcome,
    /// How far the exchanges had come; `None` if no connection was made.
    pub phase: Option<Phase>,
}

/// One counter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Total {
    /// Exchanges that ended.
    pub exchanges: u64,
    /// Exchanges among them whose connection was reset.
    pub resets: u64,
    /// Body bytes that were announced and did not come.
    pub lost_bytes: u64,
}

/// The sums of the counters, which end the log of a program.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Requests that ended. Each is exactly one of the next five, at a proxy.
    pub requests: u64,
    /// Requests whose clients were handed the whole response.
    pub whole: u64,
    /// Responses whose end the upstream did not deliver, by a reset or otherwise.
    pub truncated: u64,
    /// Requests without any response of the upstream's.
    pub no_response: u64,
    /// Requests whose clients left before the end of the response.
    pub left: u64,
    /// Requests that the proxy refused.
    pub refused: u64,
    /// Requests that had no whole response when the program ended.
    pub abandoned: u64,
    /// Upstream connections on which a RST was seen.
    pub resets: u64,
    /// Resets after which nothing was missing.
    pub harmless: u64,
    /// Body bytes announced by `Content-Length` and not delivered, of truncated responses.
    pub lost_bytes: u64,
}

impl Totals {
    /// Counts an end if it is an exchange's.
    pub(super) fn count(&self, ended: &Ended) {
        if !ended.is_exchange() {
            return;
        }
        let labels = Labels {
            cause: ended.verdict.as_ref().map(|verdict| verdict.cause),
            known: ended.verdict.as_ref().map(|verdict| verdict.known),
            outcome: ended.outcome,
            phase: ended.was_connected().then_some(ended.phase),
        };
        let mut totals = locked(&self.own);
        let total = totals.entry(labels).or_default();
        total.exchanges += 1;
        total.resets += u64::from(ended.was_reset());
        total.lost_bytes += ended.lost_bytes().unwrap_or(0);
    }

    /// More counters, whose counts these ones include.
    pub(super) fn of_a_worker(&self) -> Arc<Self> {
        let worker = Arc::default();
        locked(&self.workers).push(Arc::clone(&worker));
        worker
    }

    /// All counters that have counted something.
    pub fn labelled(&self) -> BTreeMap<Labels, Total> {
        let mut all = locked(&self.own).clone();
        for worker in locked(&self.workers).iter() {
            for (labels, counted) in worker.labelled() {
                let total = all.entry(labels).or_default();
                total.exchanges += counted.exchanges;
                total.resets += counted.resets;
                total.lost_bytes += counted.lost_bytes;
            }
        }
        all
    }

    /// The sums of all counters.
    pub fn summary(&self) -> Summary {
        let mut summary = Summary::default();
        for (labels, total) in self.labelled() {
            summary.requests += total.exchanges;
            summary.resets += total.resets;
            summary.lost_bytes += total.lost_bytes;
            match labels.outcome {
                Outcome::Whole => summary.whole += total.exchanges,
                Outcome::Sent => {}
                Outcome::Truncated => summary.truncated += total.exchanges,
                Outcome::NoResponse => summary.no_response += total.exchanges,
                Outcome::ClientLeft => summary.left += total.exchanges,
                Outcome::Refused => summary.refused += total.exchanges,
                Outcome::Abandoned => summary.abandoned += total.exchanges,
            }
            match labels.outcome {
                Outcome::Whole | Outcome::ClientLeft | Outcome::Refused => {
                    summary.harmless += total.resets;
                }
                Outcome::Sent | Outcome::Truncated | Outcome::NoResponse | Outcome::Abandoned => {}
            }
        }
        summary
    }
}

fn locked<T>(counters: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code panics while it holds the lock.
    counters.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Summary {
    /// Writes the last line of a program's log.
    pub fn log(&self) {
        tracing::info!(
            requests = self.requests,
            whole = self.whole,
            truncated = self.truncated,
            no_response = self.no_response,
            left = self.left,
            refused = self.refused,
            abandoned = self.abandoned,
            resets = self.resets,
            harmless = self.harmless,
            lost_bytes = self.lost_bytes,
            "summary"
        );
    }
}
