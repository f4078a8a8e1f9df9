//! What holds for any text that a user or a file gives: functions for a fuzzer, each of which panics if it does not hold.

use crate::judges::matrix::fuzz::matrix_list;
use crate::shared::fuzz::{requests_of_hyper, settings, timeline, url};

/// The name of a function, and the function.
pub type FuzzTarget = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: &[FuzzTarget] = &[
    ("matrix_list", matrix_list),
    ("requests_of_hyper", requests_of_hyper),
    ("settings", settings),
    ("timeline", timeline),
    ("url", url),
];

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    #[test]
    fn what_holds_for_any_text_holds_for_the_seeds() {
        super::replay::replay(super::TARGETS);
    }
}
