use std::time::Duration;

use super::{APART, Case, NO_SUCH_PATH, Scenario};
use crate::check::script::{Head, Script, Step};

/// A client need not wait for ever for a `100 Continue`.
const PATIENCE: Duration = Duration::from_millis(500);

/// A client that asks first: it sends its body if the server says `100 Continue`, and not after a final answer.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "expect-continue",
    about: "Expect: 100-continue, also where it is refused",
    rule: "RFC 9110 §10.1.1",
    cases: |plan| {
        let case = |label: &str, path: &str, bytes: u64| {
            let head = Head::new(plan)
                .path(path)
                .length(bytes)
                .field("Expect", "100-continue");
            let steps = vec![
                head.send(),
                Step::AwaitContinue(PATIENCE),
                Step::Fill(bytes / 2),
                // A reset that the first half meets is there before the second one, always.
                Step::Pause(APART),
                Step::Fill(bytes - bytes / 2),
            ];
            let script = Script {
                same_path: path == plan.target.path,
                ..Script::new(plan, steps)
            };
            Case::new(label, script)
        };
        vec![
            case("22 B", &plan.target.path, 22),
            case("1 MB, no such path", NO_SUCH_PATH, 1_000_000),
        ]
    },
};
