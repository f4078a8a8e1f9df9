//! The takers of ends: the counters, and any number of others.

use std::fmt;
use std::sync::Arc;

use super::{Ended, Totals};

/// Takes ends: a log, records, a page.
///
/// The driver of a connection calls these methods, so they must return at once. A slow taker stands behind an
/// [`EndedQueue`](super::EndedQueue).
pub trait Taker: Send + Sync {
    /// What the taker needs besides the facts.
    fn wants(&self) -> Wants {
        Wants::Verdicts
    }

    /// Whether the taker has room for a record that is about to be made. The question is asked once for each record; a
    /// taker that answers no has dropped that record.
    fn has_room(&self) -> bool {
        true
    }

    /// Takes the facts of an end that is going to be explained, before its verdict is known.
    fn facts(&self, _: &Ended) {}

    /// Takes an end with everything that is known of it.
    fn take(&self, ended: &Arc<Ended>);
}

/// What a taker needs of an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wants {
    /// The facts, and the verdict where there is something to explain.
    Verdicts,
    /// A record too, where there is something to explain.
    Records,
    /// A record of each end.
    AllRecords,
}

/// The counters and all other takers of a program. Cloning shares them.
#[derive(Clone, Default)]
pub struct Takers {
    totals: Arc<Totals>,
    others: Arc<[Arc<dyn Taker>]>,
}

impl Takers {
    /// New counters, and `others`.
    pub fn new(others: impl IntoIterator<Item = Arc<dyn Taker>>) -> Self {
        Self {
            totals: Arc::default(),
            others: others.into_iter().collect(),
        }
    }

    /// The same counters and takers, and one taker more.
    #[must_use]
    pub fn and(&self, taker: impl Taker + 'static) -> Self {
        let taker: Arc<dyn Taker> = Arc::new(taker);
        Self {
            totals: Arc::clone(&self.totals),
            others: self.others.iter().cloned().chain([taker]).collect(),
        }
    }

    /// The same takers for one worker, with counters of its own, which these counters include.
    #[must_use]
    pub fn of_a_worker(&self) -> Self {
        Self {
            totals: self.totals.of_a_worker(),
            others: Arc::clone(&self.others),
        }
    }

    /// The counters, as they stand now.
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// Whatever the most demanding taker wants.
    pub(crate) fn wants(&self) -> Wants {
        let wants = self.others.iter().map(|taker| taker.wants());
        wants.max().unwrap_or(Wants::Verdicts)
    }

    /// Whether one of them has room for a record that is about to be made.
    pub(crate) fn want_a_record(&self) -> bool {
        let mut takers = self.others.iter();
        takers.any(|taker| taker.wants() > Wants::Verdicts && taker.has_room())
    }

    pub(crate) fn facts(&self, ended: &Ended) {
        self.others.iter().for_each(|taker| taker.facts(ended));
    }

    pub(crate) fn take(&self, ended: Ended) {
        self.totals.count(&ended);
        if !self.others.is_empty() {
            let ended = Arc::new(ended);
            self.others.iter().for_each(|taker| taker.take(&ended));
        }
    }
}

impl fmt::Debug for Takers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Takers")
            .field("totals", &self.totals)
            .field("others", &self.others.len())
            .finish()
    }
}
