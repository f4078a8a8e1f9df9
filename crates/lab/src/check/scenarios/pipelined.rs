use std::time::Duration;

use super::{Case, Scenario, size, with_body};
use crate::check::script::{Head, Script, Step};

/// Time for the server to answer the first request and to close, with the second one to come.
const LATER: Duration = Duration::from_millis(5);

/// A second request behind the body, before an answer was read: a server that closes leaves it unread.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "pipelined",
    about: "a second request behind the body",
    rule: "RFC 9112 §9.3.2",
    cases: |plan| {
        let case = |bytes: &u64| {
            [("at once", Duration::ZERO), ("5 ms later", LATER)].map(|(when, pause)| {
                let mut steps = with_body(Head::new(plan).kept(), *bytes);
                steps.extend([Step::Pause(pause), Head::new(plan).length(0).send()]);
                let script = Script {
                    responses: 2,
                    ..Script::new(plan, steps)
                };
                Case::new(format!("{}, {when}", size(*bytes)), script)
            })
        };
        plan.body_sizes.iter().flat_map(case).collect()
    },
};
