use super::{Case, Scenario, size, with_body};
use crate::check::script::{Head, Script};

/// As HTTP/1.0, where the end of the stream may be all that ends a response: cut, it looks whole.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "http-1.0",
    about: "HTTP/1.0 with a body",
    rule: "RFC 9112 §6.3, §8",
    cases: |plan| {
        let case = |bytes: &u64| {
            let steps = with_body(Head::new(plan).version_1_0(), *bytes);
            Case::new(size(*bytes), Script::new(plan, steps))
        };
        plan.body_sizes.iter().map(case).collect()
    },
};
