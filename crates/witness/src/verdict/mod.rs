//! The verdict: from evidence to the causes that it allows, and what to do about each.

mod advised;
mod cause;
#[cfg(test)]
mod fixture;
mod judge;
mod known;
mod ranking;

pub use advised::Advised;
pub use cause::Cause;
pub use judge::Verdict;
pub use known::Known;
pub use ranking::{Ranked, ranking};
