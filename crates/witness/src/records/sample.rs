//! Two halves of a connection, for tests.

use super::record::Record;

/// A proxy's record of a request that was reset by an upstream in mode `lazy`.
pub(crate) fn lazy() -> Record {
    Record::from_json(include_str!("../../tests/records/lazy.proxy.json")).unwrap()
}

/// The upstream's record of the same connection.
pub(crate) fn lazy_upstream() -> Record {
    Record::from_json(include_str!("../../tests/records/lazy.upstream.json")).unwrap()
}
