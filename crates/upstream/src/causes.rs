use std::error::Error;
use std::fmt::Write as _;

/// An error and what it was caused by, outermost first.
pub(crate) fn causes<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// All of them in one line, for the log.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    for cause in causes(error).skip(1) {
        // Writing to a String does not fail.
        let _ = write!(text, ": {cause}");
    }
    text
}
