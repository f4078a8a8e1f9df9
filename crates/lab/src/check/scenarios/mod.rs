//! The scenarios: one file, one idea, one rule each.

mod chunked;
mod early_answer;
mod expect_continue;
mod gap;
mod get_with_body;
mod half_close;
mod http_1_0;
mod joined;
mod keep_alive;
mod large;
mod pipelined;
mod trickle;

use std::time::Duration;

use super::Plan;
use super::script::{Head, Script, Step};

/// An idea of how a client may send, and the rule that says what a server makes of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scenario {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) rule: &'static str,
    pub(super) cases: fn(&Plan) -> Vec<Case>,
}

/// A scenario with its numbers.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) label: String,
    pub(super) script: Script,
}

impl Case {
    fn new(label: impl Into<String>, script: Script) -> Self {
        Self {
            label: label.into(),
            script,
        }
    }
}

pub(super) const ALL: [Scenario; 12] = [
    joined::SCENARIO,
    gap::SCENARIO,
    large::SCENARIO,
    trickle::SCENARIO,
    chunked::SCENARIO,
    get_with_body::SCENARIO,
    pipelined::SCENARIO,
    keep_alive::SCENARIO,
    expect_continue::SCENARIO,
    http_1_0::SCENARIO,
    early_answer::SCENARIO,
    half_close::SCENARIO,
];

/// The scenarios' names, for whoever chooses among them.
pub fn names() -> impl Iterator<Item = &'static str> {
    ALL.iter().map(|scenario| scenario.name)
}

/// Head and body, apart: together, a server would read a small body with the head, or not, as chance has it.
fn with_body(head: Head<'_>, bytes: u64) -> Vec<Step> {
    vec![
        head.length(bytes).send(),
        Step::Pause(APART),
        Step::Fill(bytes),
    ]
}

/// Between head and body where the gap is not the subject.
const APART: Duration = Duration::from_millis(3);

/// A path that no server has: it answers with an error before it looks at a body.
const NO_SUCH_PATH: &str = "/rstlab-check/no-such-path";

/// A size as reports have it.
fn size(bytes: u64) -> String {
    format!("{} B", rstlab_cli::grouped(bytes))
}
