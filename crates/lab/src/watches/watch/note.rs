//! Notes for the user, on standard error.

use std::io::{self, Write as _};

use super::text::INDENT;
use crate::shared::wrapped::wrapped;

/// Writes a note for the user. Standard error may be closed; that is not an error.
pub(super) fn note(text: &str) {
    let _ = io::stderr().write_all(wrapped(text, "rstlab watch: ", INDENT).as_bytes());
}
