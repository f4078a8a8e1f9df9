//! Notes for the user, on standard error.

use std::io::{self, Write as _};

use super::text::INDENT;
use crate::shared::wrapped::wrapped_on_stderr;

/// Writes a note for the user. Standard error may be closed; that is not an error.
pub(super) fn note(text: &str) {
    let text = wrapped_on_stderr(text, "rstlab watch: ", INDENT);
    let _ = io::stderr().write_all(text.as_bytes());
}
