//! Two halves of a connection, for tests.

use crate::Record;

/// A proxy's record of the lazy story.
pub(crate) fn lazy() -> Record {
    Record::from_json(include_str!("../../tests/records/lazy.proxy.json")).unwrap()
}

/// The upstream's record of the same connection.
pub(crate) fn lazy_upstream() -> Record {
    Record::from_json(include_str!("../../tests/records/lazy.upstream.json")).unwrap()
}
