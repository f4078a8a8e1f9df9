//! Has the witness explain an end if there is something to explain, and hands the end to the takers.

use std::sync::Arc;
use std::time::Duration;

use rstlab_wire::{Tape, monotonic_now};

use crate::counters::{Past, Window};
use crate::ended::{Ended, Takers, Teller, Wants};
use crate::witness::Witness;

/// The way of every end: to the witness, then to the takers. Clones share both.
#[derive(Debug, Clone)]
pub struct Dispatch {
    witness: Witness,
    takers: Takers,
    wants: Wants,
}

/// The observation of a connection, or of the next exchange on it, from its beginning.
#[derive(Debug)]
pub struct Watch {
    /// When the exchange began, on `CLOCK_MONOTONIC`.
    pub began: Duration,
    /// Records the system calls, if a taker wants records.
    pub tape: Tape,
    window: Option<Window>,
}

impl Watch {
    /// The exchange is over, and is going to be explained. Reads the counters now if no other connection lived meanwhile,
    /// because the next one may begin at once.
    pub fn over(self) -> Option<Past> {
        self.window.map(Window::ended)
    }
}

impl Dispatch {
    /// Has `witness` explain ends, and hands them to `takers`.
    pub fn new(witness: Witness, takers: Takers) -> Self {
        let wants = takers.wants();
        Self {
            witness,
            takers,
            wants,
        }
    }

    /// The witness of this way.
    pub fn witness(&self) -> &Witness {
        &self.witness
    }

    /// Whether a taker wants a record of each end, even if there is nothing to explain.
    pub fn explains_all(&self) -> bool {
        self.wants == Wants::AllRecords
    }

    /// Begins to observe a connection, or the next exchange on it.
    pub fn watch(&self) -> Watch {
        Watch {
            began: monotonic_now(),
            tape: if self.wants >= Wants::Records {
                Tape::recording()
            } else {
                Tape::default()
            },
            window: self.witness.window(),
        }
    }

    /// Hands on an end with nothing to explain.
    pub fn end(&self, ended: Ended) {
        self.takers.take(ended);
    }

    /// Has an end explained and hands it on; waits up to `patience` for the evidence of a RST. `past` comes from
    /// [`Watch::over`].
    pub async fn explain(&self, mut ended: Ended, past: Option<Past>, patience: Duration) {
        self.takers.facts(&ended);
        if let Some(found) = self.witness.examine(&ended, past, patience).await {
            // An upstream's connection may be reset later, or may have been reset unseen: then there is a record and
            // no verdict. If the witness would have seen a RST, there was none, and there is nothing to record.
            let has_verdict =
                found.evidence.is_conclusive() || matches!(ended.teller, Teller::Proxy(_));
            let is_worth_a_record =
                has_verdict || self.explains_all() || !self.witness.sees_resets();
            let verdict = found.verdict.clone();
            if is_worth_a_record && self.takers.want_a_record() {
                ended.record = Some(Arc::new(found.into_record(&mut ended)));
            }
            ended.verdict = has_verdict.then_some(verdict);
        }
        self.takers.take(ended);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::ended::{Taker, ended_with};
    use crate::records::lazy;

    /// A taker without room for records, which counts the records that it could not take.
    struct Full(Arc<AtomicU64>);

    impl Taker for Full {
        fn wants(&self) -> Wants {
            Wants::Records
        }

        fn has_room(&self) -> bool {
            self.0.fetch_add(1, Ordering::Relaxed);
            false
        }

        fn take(&self, ended: &Arc<Ended>) {
            assert!(ended.record.is_none());
        }
    }

    #[tokio::test]
    async fn a_taker_is_asked_for_room_once_for_each_record_that_could_be_made() {
        let asked = Arc::default();
        let takers = Takers::default().and(Full(Arc::clone(&asked)));
        let dispatch = Dispatch::new(Witness::default(), takers);
        let ended = || Ended {
            verdict: None,
            record: None,
            ..ended_with(lazy())
        };
        dispatch.end(ended());
        let not_connected = Ended {
            connection: None,
            ..ended()
        };
        dispatch.explain(not_connected, None, Duration::ZERO).await;
        assert_eq!(asked.load(Ordering::Relaxed), 0);
        dispatch.explain(ended(), None, Duration::ZERO).await;
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }
}
