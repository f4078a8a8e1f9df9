use super::{Case, Scenario, size, with_body};
use crate::check::script::{Head, Script, Step};

/// The next request on a kept connection: it must not meet a close, nor the body of the one before.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "keep-alive",
    about: "the next request on the kept connection",
    rule: "RFC 9112 §9.3",
    cases: |plan| {
        let case = |bytes: &u64| {
            let mut steps = with_body(Head::new(plan).kept(), *bytes);
            steps.push(Step::AwaitResponse);
            steps.push(Head::new(plan).length(0).send());
            let script = Script {
                responses: 2,
                ..Script::new(plan, steps)
            };
            Case::new(size(*bytes), script)
        };
        plan.body_sizes.iter().map(case).collect()
    },
};
