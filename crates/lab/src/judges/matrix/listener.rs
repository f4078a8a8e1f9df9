//! Makes sure that nobody listens at an entry's address before the entry is started, and that the entry does afterwards.

use std::io;
use std::net::{SocketAddr, TcpListener};

use procfs::process::Stat;
use rstlab_witness::Owners;
use tokio::net::UnixStream;

use crate::judges::check::Address;
use crate::shared::program::proc::{named, stat};

/// Makes sure that nobody listens at the address yet.
///
/// # Errors
/// Somebody does; the text says who.
pub(super) async fn ensure_free(address: &Address) -> Result<(), String> {
    match address {
        Address::Tcp(address) => match TcpListener::bind(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(format!(
                "port {} is in use already: {}",
                address.port(),
                who(listener(*address))
            )),
            // If the port has another problem, the program will say so.
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

/// Makes sure that the process that listens at the address was not running before the entry's process was started. A
/// younger process need not be the entry's child: a process in a container is not.
///
/// # Errors
/// The process was running before; the text names it.
pub(super) fn ensure_is_entry(address: &Address, entry: Option<u32>) -> Result<(), String> {
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

/// The process that listens there, if `/proc` shows it; if several processes share the socket, the one with the lowest
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
