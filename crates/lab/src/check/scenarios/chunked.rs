use super::{APART, Case, Scenario, size};
use crate::check::script::{Head, Script, Step};

/// A body of unknown length, with and without a trailer section.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "body-chunked",
    about: "a chunked body, with and without trailers",
    rule: "RFC 9112 §7.1",
    cases: |plan| {
        let mut cases = Vec::new();
        for bytes in &plan.body_sizes {
            for (label, last) in [("", "0\r\n\r\n"), (", trailers", "0\r\nX-Sum: 1\r\n\r\n")] {
                let mut steps = vec![Head::new(plan).chunked().send(), Step::Pause(APART)];
                if *bytes > 0 {
                    steps.push(Step::Send(format!("{bytes:x}\r\n").into_bytes()));
                    steps.push(Step::Fill(*bytes));
                    steps.push(Step::Send(b"\r\n".to_vec()));
                }
                steps.push(Step::Send(last.into()));
                let label = format!("{}{label}", size(*bytes));
                cases.push(Case::new(label, Script::new(plan, steps)));
            }
        }
        cases
    },
};
