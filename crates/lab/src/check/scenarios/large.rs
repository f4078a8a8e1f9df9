use super::{Case, Scenario, size, with_body};
use crate::check::script::{Head, Script};

/// What servers commonly read on after an answer, and one byte more: a server with a bound loses beyond it.
const BOUNDS: [u64; 3] = [64 * 1024, 256 * 1024, 2 * 1024 * 1024];

/// A body larger than what servers commonly drain.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "body-large",
    about: "a body larger than common drain bounds",
    rule: "RFC 9112 §9.6",
    cases: |plan| {
        let case = |bytes: u64| {
            let steps = with_body(Head::new(plan), bytes);
            Case::new(size(bytes), Script::new(plan, steps))
        };
        BOUNDS.iter().map(|bound| case(bound + 1)).collect()
    },
};
