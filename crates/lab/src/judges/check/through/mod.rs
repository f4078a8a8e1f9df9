//! `rstlab check --through`: does a proxy hand on an answer that comes before the upload has ended?

mod report;
mod run;
mod text;

pub use report::{SizeReport, ThroughReport, Untried};
pub use run::{CannotTest, run};

pub(super) use text::{markdown, text};
