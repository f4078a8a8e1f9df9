//! Records of connections with their verdicts, each in a file, and a directory that holds the newest of them.

mod capture_file;
mod ends;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod keeping;
mod merged;
mod record;
mod record_directory;
mod remarks;
mod role;
mod safe_directory;
#[cfg(test)]
mod sample;
mod stored;

pub(crate) use ends::{Ends, EndsFile, ServerEnd};
pub use keeping::Keeping;
pub use record::{NotOne, RECORD_VERSION, Record};
pub(crate) use record_directory::RecordDirectory;
pub(crate) use remarks::remarks;
pub use role::Role;
#[cfg(test)]
pub(crate) use sample::{lazy, lazy_upstream};
pub use stored::{BadRecord, BadRecordFile};
