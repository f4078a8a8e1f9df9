use super::{Case, Scenario, size, with_body};
use crate::check::script::{Head, Script, Step};

/// A client that has sent everything and says so with a FIN: it still waits for its answer.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "half-close",
    about: "the client half-closes after its request",
    rule: "RFC 9293 §3.6",
    cases: |plan| {
        let case = |bytes: &u64| {
            let mut steps = with_body(Head::new(plan), *bytes);
            steps.push(Step::HalfClose);
            Case::new(size(*bytes), Script::new(plan, steps))
        };
        plan.body_sizes.iter().map(case).collect()
    },
};
