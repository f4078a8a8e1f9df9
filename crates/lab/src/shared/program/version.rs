//! Asks a program for its version.

use std::path::Path;
use std::time::Duration;

use tokio::time::timeout;

use super::RunningProgram;
use crate::shared::printable::printable;

/// Limit of the command that prints the version.
const LIMIT: Duration = Duration::from_secs(20);

/// How many characters of a version are kept.
const MAX_CHARS: usize = 12;

/// The version that a command prints; `None` if there is no command, or if the command prints none.
pub(crate) async fn version_of(command: &[String], directory: &Path) -> Option<String> {
    if command.is_empty() {
        return None;
    }
    let mut program = RunningProgram::start(command, directory, []).ok()?;
    let output = timeout(LIMIT, program.whole_output()).await.ok()?;
    version(&output)
}

/// The first word that looks like a version: digits, a dot, digits.
fn version(text: &str) -> Option<String> {
    let words = text.split(|c: char| c.is_whitespace() || "()/,+\"".contains(c));
    let mut versions = words
        .map(|word| word.trim_start_matches('v'))
        .filter(|word| {
            let parts = word.split_once('.');
            let number = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
            parts.is_some_and(|(major, minor)| major.parse::<u32>().is_ok() && number(minor))
        });
    versions.next().map(|word| printable(word, MAX_CHARS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_found_in_the_output_of_programs() {
        for (text, expected) in [
            ("nginx version: nginx/1.22.1\n", "1.22.1"),
            ("gunicorn (version 23.0.0)", "23.0.0"),
            ("v20.20.2", "20.20.2"),
            (
                "Server version: Apache/2.4.71 (Debian)\nServer built: ...",
                "2.4.71",
            ),
            (
                "HAProxy version 2.6.12-1+deb12u4 2026/10/17 - https://haproxy.org/",
                "2.6.12-1",
            ),
            (
                "lighttpd/1.4.69 (ssl) - a light and fast webserver",
                "1.4.69",
            ),
            ("rstlab-upstream 0.1.0", "0.1.0"),
            ("name = \"hyper\"\nversion = \"1.12.0\"", "1.12.0"),
        ] {
            assert_eq!(version(text).as_deref(), Some(expected), "{text}");
        }
        assert_eq!(version("usage: x [-v]"), None);
    }
}
