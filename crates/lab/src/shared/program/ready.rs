//! Waits until a program that was started answers.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, sleep, timeout};

use super::RunningProgram;
use crate::shared::target::Address;

/// Time between two attempts.
const EVERY: Duration = Duration::from_millis(20);

/// Limit of an attempt.
const ATTEMPT: Duration = Duration::from_secs(2);

/// How a response begins (RFC 9112 §4).
const BEGINNING: &[u8; 7] = b"HTTP/1.";

/// Waits until the program answers a GET of `path`, for `within` at most. Without a path a connection is enough.
///
/// # Errors
/// The program has ended, or does not answer in time; the text says which.
pub(crate) async fn wait(
    running: &mut RunningProgram,
    address: &Address,
    path: Option<&str>,
    within: Duration,
) -> Result<(), String> {
    let deadline = Instant::now() + within;
    loop {
        if let Some(how) = running.ended("before it was ready") {
            running.read_output().await;
            return Err(running.with_output(&how));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let attempt = timeout(left.min(ATTEMPT), attempt(address, path)).await;
        let last = match attempt {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer".to_owned(),
        };
        if Instant::now() >= deadline {
            let within = humantime::format_duration(within);
            return Err(running.with_output(&format!("not ready within {within} ({last})")));
        }
        sleep(EVERY).await;
    }
}

async fn attempt(address: &Address, path: Option<&str>) -> io::Result<()> {
    match address {
        Address::Tcp(address) => answers(TcpStream::connect(address).await?, path).await,
        Address::Unix(socket) => answers(UnixStream::connect(socket).await?, path).await,
    }
}

async fn answers(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    path: Option<&str>,
) -> io::Result<()> {
    let Some(path) = path else {
        return Ok(());
    };
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut beginning = [0; BEGINNING.len()];
    stream.read_exact(&mut beginning).await?;
    if beginning == *BEGINNING {
        Ok(())
    } else {
        Err(io::Error::other("what answers is not HTTP/1"))
    }
}
