use super::{Case, NO_SUCH_PATH, Scenario, with_body};
use crate::check::script::{Head, Script};

/// An error answer (404, 405, 413) while a large body is on its way.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "early-answer",
    about: "an early error answer during an upload",
    rule: "RFC 9112 §9.5, §9.6",
    cases: |plan| {
        [("1 MB", 1_000_000), ("5 MB", 5_000_000)]
            .map(|(label, bytes)| {
                let steps = with_body(Head::new(plan).path(NO_SUCH_PATH), bytes);
                let script = Script {
                    same_path: false,
                    ..Script::new(plan, steps)
                };
                Case::new(format!("{label}, no such path"), script)
            })
            .into()
    },
};
