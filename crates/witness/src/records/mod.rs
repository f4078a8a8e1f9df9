//! Records: what happened on a connection.

mod record;

pub use record::{Event, Lane, What};
