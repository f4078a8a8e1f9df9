//! One case of a scenario: a size and a gap, the kind of its requests, and its script.

use super::script::Script;
use super::severity::RequestKind;
use rstlab_cli::grouped;

/// A scenario with one size of body and one gap.
#[derive(Debug, Clone)]
pub(super) struct ScenarioCase {
    pub(super) label: String,
    pub(super) requests: RequestKind,
    pub(super) script: Script,
}

impl ScenarioCase {
    /// The same case with requests of this kind.
    pub(super) fn of(self, requests: RequestKind) -> Self {
        Self { requests, ..self }
    }
}

/// A case with usual requests.
pub(super) fn case(label: impl Into<String>, script: Script) -> ScenarioCase {
    ScenarioCase {
        label: label.into(),
        requests: RequestKind::Usual,
        script,
    }
}

/// The same cases with requests that few clients send.
pub(super) fn rare(cases: Vec<ScenarioCase>) -> Vec<ScenarioCase> {
    let cases = cases.into_iter();
    cases.map(|case| case.of(RequestKind::Rare)).collect()
}

/// A size as reports write it.
pub(super) fn size(bytes: u64) -> String {
    format!("{} B", grouped(bytes))
}
