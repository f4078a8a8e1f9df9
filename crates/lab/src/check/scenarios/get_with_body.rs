use super::{APART, Case, Scenario, with_body};
use crate::check::script::{Head, Script, Step};

/// A body where servers expect none: few read it (gunicorn's issue 3334).
pub(super) const SCENARIO: Scenario = Scenario {
    name: "get-with-body",
    about: "GET with a body, GET with an empty chunked body",
    rule: "RFC 9110 §9.3.1",
    cases: |plan| {
        let get = || Head::new(plan).method("GET");
        let sized = with_body(get(), 22);
        let empty = vec![
            get().chunked().send(),
            Step::Pause(APART),
            Step::Send(b"0\r\n\r\n".to_vec()),
        ];
        [("GET, 22 B", sized), ("GET, empty chunked", empty)]
            .map(|(label, steps)| {
                let script = Script {
                    same_path: plan.method == "GET",
                    head_only: false,
                    ..Script::new(plan, steps)
                };
                Case::new(label, script)
            })
            .into()
    },
};
