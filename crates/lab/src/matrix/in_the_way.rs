//! Whether what answers at an entry's address is the entry.

use std::io;
use std::net::{SocketAddr, TcpListener};

use procfs::process::Stat;
use rstlab_witness::Owners;
use tokio::net::UnixStream;

use super::proc::{named, stat};
use crate::check::Address;

/// Makes sure that nobody is there yet.
///
/// # Errors
/// Somebody is; the text says who.
pub(super) async fn before(address: &Address) -> Result<(), String> {
    match address {
        Address::Tcp(address) => match TcpListener::bind(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(format!(
                "port {} is in use already: {}",
                address.port(),
                who(listener(*address))
            )),
            // What else is wrong with the port, the program will say.
            _ => Ok(()),
        },
        Address::Unix(path) => match UnixStream::connect(path).await {
            Ok(stream) => Err(format!(
                "{} is in use already: {}",
                path.display(),
                who(stream.peer_cred().ok().and_then(|peer| stat(peer.pid()?)))
            )),
            Err(_) => Ok(()),
        },
    }
}

/// Makes sure that whoever listens there was not running before the entry's process was started. A younger one need
/// not be its child: one in a container is not.
///
/// # Errors
/// It was; the text says who it is.
pub(super) fn after(address: &Address, entry: Option<u32>) -> Result<(), String> {
    let Address::Tcp(address) = address else {
        return Ok(());
    };
    let entry = entry.and_then(|id| stat(id.try_into().ok()?));
    match (listener(*address), entry) {
        (Some(other), Some(entry)) if other.starttime < entry.starttime => Err(format!(
            "it is not what listens on port {}: {} does, and ran before it",
            address.port(),
            named(&other)
        )),
        _ => Ok(()),
    }
}

/// The process that listens there, if `/proc` shows it: of several that share the socket the one with the lowest
/// number.
fn listener(address: SocketAddr) -> Option<Stat> {
    let owner = Owners::in_this_namespace().of(address)?;
    stat(owner.process.pid.try_into().ok()?)
}

fn who(process: Option<Stat>) -> String {
    match process {
        Some(process) => format!("{} listens there", named(&process)),
        None => "by whom, this user can't see".to_owned(),
    }
}
