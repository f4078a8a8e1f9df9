//! Counts alike things together: failures and statuses in the reports of `load` and `check`.

/// Adds `new` to the entry that is alike, or as an entry of its own if there is none.
pub(crate) fn tally<T>(
    entries: &mut Vec<T>,
    new: T,
    are_alike: impl Fn(&T, &T) -> bool,
    add: impl FnOnce(&mut T, T),
) {
    match entries.iter_mut().find(|entry| are_alike(entry, &new)) {
        Some(entry) => add(entry, new),
        None => entries.push(new),
    }
}
