use super::{Case, Scenario, size};
use crate::check::script::{Head, Script, Step};

/// The body a gap later: the answer and the close may come first.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "body-after-gap",
    about: "the body a gap after the head",
    rule: "RFC 9112 §9.6",
    cases: |plan| {
        let mut cases = Vec::new();
        for bytes in &plan.body_sizes {
            for gap in &plan.gaps {
                let steps = vec![
                    Head::new(plan).length(*bytes).send(),
                    Step::Pause(*gap),
                    Step::Fill(*bytes),
                ];
                let label = format!("{}, {}", size(*bytes), humantime::format_duration(*gap));
                cases.push(Case::new(label, Script::new(plan, steps)));
            }
        }
        cases
    },
};
