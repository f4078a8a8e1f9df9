//! Records: what happened on a connection, with its verdict; as a file, and a directory of the newest.

mod capture_file;
mod ends;
mod merged;
mod record;
mod recorder;
mod remarks;
mod role;
#[cfg(test)]
mod sample;
mod shelf;
mod stored;
mod writer;

pub use record::{Event, Lane, NotOne, RECORD_VERSION, Record, What};
pub use recorder::Recorder;
pub(crate) use remarks::remarks;
pub use role::Role;
#[cfg(test)]
pub(crate) use sample::{lazy, lazy_upstream};
pub use stored::{BadFile, BadRecord};
