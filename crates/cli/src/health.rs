//! The health check of a running program.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context as _, ensure};

/// Time for each step of the check.
const LIMIT: Duration = Duration::from_secs(2);

/// Asks the program that listens on `address` whether it answers.
///
/// Sends `OPTIONS *` with `Max-Forwards: 0`: a proxy answers this itself instead of passing it on
/// (RFC 9110 §7.6.2), a server answers it for itself and not for a resource (RFC 9110 §9.3.7).
///
/// # Errors
/// Nothing listens, or the answer is not a 2xx within two seconds.
pub fn check_health(address: &str) -> anyhow::Result<()> {
    let target = address
        .to_socket_addrs()
        .with_context(|| format!("cannot resolve {address}"))?
        .next()
        .with_context(|| format!("{address} has no address"))?;
    let mut stream = TcpStream::connect_timeout(&target, LIMIT)
        .with_context(|| format!("cannot connect to {address}"))?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    write!(
        stream,
        "OPTIONS * HTTP/1.1\r\nHost: {address}\r\nMax-Forwards: 0\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream
        .take(64 * 1024)
        .read_to_string(&mut answer)
        .with_context(|| format!("{address} did not answer"))?;
    let line = answer.lines().next().unwrap_or_default();
    ensure!(
        line.starts_with("HTTP/1.1 2"),
        "{address} answered {line:?}"
    );
    Ok(())
}
