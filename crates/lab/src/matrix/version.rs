use std::path::PathBuf;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;

use super::file::Entry;
use super::process::{Group, command};
use crate::printable::printable;

/// Time to print it.
const LIMIT: Duration = Duration::from_secs(20);

/// Most bytes that are looked at, and most characters of a version.
const MOST_BYTES: u64 = 4096;
const MOST_CHARS: usize = 12;

/// Asks a program for its version; `None` if there is no command for it, or it fails.
pub(super) async fn ask(entry: &Entry) -> Option<String> {
    let bin = std::env::current_exe()
        .ok()?
        .parent()
        .map(PathBuf::from)?
        .display()
        .to_string();
    let words: Vec<_> = entry
        .version
        .iter()
        .map(|word| word.replace("{bin}", &bin))
        .collect();
    if words.is_empty() {
        return None;
    }
    let mut child = command(&words, &entry.directory).spawn().ok()?;
    let _group = Group::of(&child);
    let (mut stdout, mut stderr) = (child.stdout.take()?, child.stderr.take()?);
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut out_part = (&mut stdout).take(MOST_BYTES);
    let mut err_part = (&mut stderr).take(MOST_BYTES);
    let read = async {
        tokio::join!(
            out_part.read_to_end(&mut out),
            err_part.read_to_end(&mut err)
        )
    };
    let (out_read, err_read) = timeout(LIMIT, read).await.ok()?;
    out_read.and(err_read).ok()?;
    timeout(LIMIT, child.wait()).await.ok()?.ok()?;
    out.extend(err);
    version(&String::from_utf8_lossy(&out))
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
    versions.next().map(|word| printable(word, MOST_CHARS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_programs_print() {
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
