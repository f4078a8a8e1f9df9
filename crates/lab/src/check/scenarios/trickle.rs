use std::time::Duration;

use super::{Case, Scenario};
use crate::check::script::{Head, Script, Step};

/// Longer than the 2 s that gunicorn and others read on.
const TIME: Duration = Duration::from_millis(2500);

/// Between two pieces.
const EVERY: Duration = Duration::from_millis(50);

/// A body that comes in slowly, past the time that servers commonly read on.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "body-trickles",
    about: "a body that trickles in for 2.5 s",
    rule: "RFC 9112 §9.6",
    cases: |plan| {
        let pieces = TIME.as_millis() / EVERY.as_millis();
        let mut steps = vec![Head::new(plan).length(pieces as u64).send()];
        for _ in 0..pieces {
            steps.extend([Step::Pause(EVERY), Step::Fill(1)]);
        }
        let label = format!("{pieces} B, one every 50 ms");
        vec![Case::new(label, Script::new(plan, steps))]
    },
};
