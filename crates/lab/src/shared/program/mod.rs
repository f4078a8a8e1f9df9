//! Programs that a command starts, watches and ends: the servers and proxies of `matrix`, the proxies of `bench`.

pub(crate) mod orphans;
pub(crate) mod proc;
pub(crate) mod ready;
mod running;
mod version;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::{env, io};

pub(crate) use running::RunningProgram;
pub(crate) use version::version_of;

/// The directory of the running program, where its siblings are.
pub(crate) fn own_directory() -> io::Result<PathBuf> {
    let program = env::current_exe()?;
    Ok(program.parent().map(PathBuf::from).unwrap_or_default())
}

/// An address of this machine whose port nobody listens on at this moment.
pub(crate) fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}
