//! Settings that may be absent.

/// The value of a setting that may be absent: `None` if it was given and is bad.
pub(crate) fn given<T>(read: Option<Option<T>>) -> Option<Option<T>> {
    match read {
        Some(value) => value.map(Some),
        None => Some(None),
    }
}
