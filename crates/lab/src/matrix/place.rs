use std::env;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;

use anyhow::Context as _;
use tempfile::TempDir;

use super::file::Entry;
use super::loopback;
use crate::check::Address;

/// Length of the file that servers of files can answer with.
const RESPONSE_BYTES: usize = 614_400;

/// Where an entry runs: a directory of its own, a port or socket, and what its placeholders stand for.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) address: Address,
    values: Vec<(&'static str, String)>,
    /// Removed with everything in it when the place is dropped.
    _directory: TempDir,
}

/// The names of the placeholders that an entry has.
pub(super) fn names(proxy: bool, unix: bool) -> Vec<&'static str> {
    let mut names = vec!["bin", "tmp"];
    names.push(if unix { "unix" } else { "port" });
    names.extend(proxy.then_some("upstream"));
    names
}

/// The placeholders in a text: words of small letters in braces.
pub(super) fn placeholders(text: &str) -> impl Iterator<Item = &str> {
    let ends = text
        .split('{')
        .skip(1)
        .filter_map(|rest| rest.split_once('}'));
    let is_word =
        |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase());
    ends.map(|(word, _)| word).filter(move |word| is_word(word))
}

impl Place {
    /// Makes the directory with the entry's files, and finds a free port. `upstream` is where a proxy forwards to.
    ///
    /// # Errors
    /// The directory can't be made, or there is no free port.
    pub(super) fn new(entry: &Entry, upstream: Option<SocketAddr>) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("rstlab-")
            .tempdir()
            .context("cannot make a temporary directory")?;
        let program = env::current_exe().context("cannot find rstlab's own directory")?;
        let bin = program.parent().map(PathBuf::from).unwrap_or_default();
        let mut values = vec![
            ("bin", bin.display().to_string()),
            ("tmp", directory.path().display().to_string()),
        ];
        values.extend(upstream.map(|address| ("upstream", address.to_string())));
        let address = if let Some(path) = &entry.unix {
            let path = filled(path, &values);
            values.push(("unix", path.clone()));
            Address::Unix(path.into())
        } else {
            let port = match entry.port {
                Some(port) => port,
                None => free_port().context("no free port")?,
            };
            values.push(("port", port.to_string()));
            Address::Tcp(loopback(port))
        };
        let write = |name: &str, bytes: &[u8]| {
            let path = directory.path().join(name);
            fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))
        };
        write("response", &[b'x'; RESPONSE_BYTES])?;
        for (name, text) in &entry.files {
            write(name, filled(text, &values).as_bytes())?;
        }
        Ok(Self {
            address,
            values,
            _directory: directory,
        })
    }

    /// The text with its placeholders filled in.
    pub(super) fn filled(&self, text: &str) -> String {
        filled(text, &self.values)
    }
}

fn filled(text: &str, values: &[(&'static str, String)]) -> String {
    let mut text = text.to_owned();
    for (name, value) in values {
        text = text.replace(&format!("{{{name}}}"), value);
    }
    text
}

/// A port that nobody listens on at this moment.
fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind(loopback(0))?.local_addr()?.port())
}
