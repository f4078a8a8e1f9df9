//! Code that more than one room needs: targets and counts, output to terminals and files, the timeline of a record.

pub(crate) mod color;
pub(crate) mod errno;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
pub(crate) mod given;
pub(crate) mod markdown;
pub(crate) mod other_protocol;
pub(crate) mod output;
pub(crate) mod printable;
pub(crate) mod program;
pub(crate) mod table;
pub(crate) mod tally;
pub(crate) mod target;
pub(crate) mod timeline;
pub(crate) mod url;
pub(crate) mod wrapped;
