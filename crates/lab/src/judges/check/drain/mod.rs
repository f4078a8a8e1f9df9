//! Searches for how far a server reads on after an answer: in bytes, and in time.

mod answered;
mod bytes;
mod report;
mod time;

pub use report::{Bound, Drain, DrainKind};

pub(super) use bytes::search_bytes;
pub(super) use time::search_time;
