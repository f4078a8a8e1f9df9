//! The place where an entry runs: its directory, its address, and the values of its placeholders.

use std::fs;
use std::net::SocketAddr;

use anyhow::Context as _;
use tempfile::TempDir;

use super::list::MatrixEntry;
use super::placeholders::filled;
use crate::judges::check::Address;
use crate::shared::program::{free_address, own_directory};

/// Length of the file `response`, which file servers can answer with.
const RESPONSE_BYTES: usize = 614_400;

/// Where an entry runs: a directory of its own, a port or socket, and the values of its placeholders.
#[derive(Debug)]
pub(super) struct EntryPlace {
    pub(super) address: Address,
    values: Vec<(&'static str, String)>,
    /// The directory, which is removed with everything in it when the place is dropped.
    _directory: TempDir,
}

impl EntryPlace {
    /// Makes the directory with the entry's files, and finds a free port. `upstream` is where a proxy forwards to.
    ///
    /// # Errors
    /// The directory can't be made, or there is no free port.
    pub(super) fn new(entry: &MatrixEntry, upstream: Option<SocketAddr>) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("rstlab-")
            .tempdir()
            .context("cannot make a temporary directory")?;
        let bin = own_directory().context("cannot find rstlab's own directory")?;
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
                None => free_address().context("no free port")?.port(),
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

/// The address of a port on this machine.
fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}
