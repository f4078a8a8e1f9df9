//! The list of scenarios that `check --list` prints.

use super::scenarios::SCENARIOS;
use crate::shared::table::table;
use crate::shared::wrapped::{columns, lines};

/// Each scenario's name, what its client does, and its rule.
pub(super) fn list() -> String {
    let rows = SCENARIOS.map(|one| [one.name, one.about, one.rule].map(str::to_owned));
    lines(
        table(["scenario", "what the client sends", "rule"], rows, 2, 0..0),
        columns(),
    )
}
