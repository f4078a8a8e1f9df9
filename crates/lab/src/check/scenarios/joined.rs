use super::{Case, Scenario, size};
use crate::check::script::{Head, Script, Step};

/// As much of the body as goes along with the head.
const ALONG: u64 = 64 * 1024;

/// The body right after the head, in the same write as far as it fits: a server reads a small one with the head.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "body-with-head",
    about: "the body right after the head, in one write",
    rule: "RFC 9112 §9.3",
    cases: |plan| {
        let case = |bytes: &u64| {
            let along = (*bytes).min(ALONG);
            let mut first = Head::new(plan).length(*bytes).bytes();
            first.extend(std::iter::repeat_n(b'x', along as usize));
            let steps = vec![Step::Send(first), Step::Fill(bytes - along)];
            Case::new(size(*bytes), Script::new(plan, steps))
        };
        plan.body_sizes.iter().map(case).collect()
    },
};
