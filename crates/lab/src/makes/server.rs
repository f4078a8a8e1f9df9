//! `rstlab server`: sends, and closes without ever reading.
//!
//! If the client has sent anything, those bytes lie unread at `close()`, and the kernel sends a RST instead of a FIN
//! (`tcp_close`: `TCP_ABORT_ON_CLOSE`). Bytes of the server that were still in its send queue are lost.

use std::fmt;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use rstlab_cli::Settings;

use crate::makes::calls;

/// Connections served at once. More of them wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 1000;

/// Time limit for a client that takes no bytes.
const SEND_LIMIT: Duration = Duration::from_secs(60);

/// Send bytes to every client and close without reading: the server of the article, without HTTP
///
/// It prints one line for each connection, and runs until it is interrupted. `rstlab client --spam` is reset by it,
/// `rstlab client` is not.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes: 1 the port cannot be listened on, 2 bad settings.")]
pub struct ServerArgs {
    /// Port on 127.0.0.1 to listen on; 0 takes a free port, which the first printed line names
    #[arg(long, default_value = "8125")]
    port: String,

    /// Bytes to send on each connection
    #[arg(long, default_value = "600000")]
    bytes: String,

    /// Pause between accept() and the first byte that is sent
    ///
    /// During the pause the bytes of --spam arrive. They then lie unread at close(), so the reset is certain and comes
    /// while the last bytes are still on their way. A pause before close() would not do: the client would read
    /// everything first, and the reset would destroy nothing.
    #[arg(long, default_value = "1s", value_name = "TIME")]
    sleep: String,

    /// Print each system call on the sockets on standard error, as strace does: time (UTC), call, result, duration
    #[arg(long)]
    trace: bool,
}

/// The settings of the server, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    /// Port on 127.0.0.1; 0 is any free port.
    pub port: u16,
    /// Bytes to send on each connection.
    pub bytes: u64,
    /// Pause before the first byte.
    pub sleep: Duration,
    /// Whether each system call on a socket is printed on standard error.
    pub trace: bool,
}

impl ServerArgs {
    /// The settings, or `None` if one of them is bad.
    pub fn config(&self, settings: &mut Settings) -> Option<ServerConfig> {
        let port = port(settings, &self.port);
        let bytes = settings.bytes("--bytes", &self.bytes);
        let sleep = settings.time("--sleep", &self.sleep);
        Some(ServerConfig {
            port: port?,
            bytes: bytes?,
            sleep: sleep?,
            trace: self.trace,
        })
    }
}

/// Reads `--port`.
pub(crate) fn port(settings: &mut Settings, text: &str) -> Option<u16> {
    settings.read("--port", text, "a port, 0 to 65535", |text| {
        text.parse().ok()
    })
}

/// Listens, prints the address, and serves for ever.
///
/// # Errors
/// The port is in use, or standard output is closed.
pub fn execute(config: &ServerConfig) -> anyhow::Result<ExitCode> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, config.port));
    let listener = calls::listen(address, config.trace)
        .with_context(|| format!("cannot listen on {address}; --port sets another port"))?;
    let address = calls::local_address(&listener, config.trace)?;
    let mut out = io::stdout();
    writeln!(out, "listening on {address}")?;
    out.flush()?;
    serve(&listener, config)
}

/// Serves every connection in a thread of its own, and prints a line for each.
fn serve(listener: &TcpListener, config: &ServerConfig) -> ! {
    // One message for each connection that is served: a full channel makes the next connection wait.
    let (enter, leave) = mpsc::sync_channel(MAX_CONNECTIONS);
    let leave = Mutex::new(leave);
    let leave = || leave.lock().map(|entered| entered.recv());
    thread::scope(|scope| {
        loop {
            let _ = enter.send(());
            let served = calls::accept(listener, config.trace).and_then(|(stream, peer)| {
                thread::Builder::new().spawn_scoped(scope, move || {
                    let sent = send_and_close(stream, config);
                    // If nobody reads standard output any more, the server goes on.
                    let _ = writeln!(io::stdout(), "{peer}: {sent}");
                    let _ = leave();
                })
            });
            if let Err(error) = served {
                let _ = leave();
                eprintln!("rstlab server: no connection served: {error}");
                // Descriptors, memory or threads have run out: an immediate retry would fail, too.
                thread::sleep(Duration::from_millis(100));
            }
        }
    })
}

/// How a connection went.
#[derive(Debug)]
struct SentBytes {
    /// Bytes the kernel took from us.
    bytes: u64,
    /// Why the kernel took no more.
    error: Option<io::Error>,
    /// Bytes that lay unread at `close()`: if there are any, the kernel sends a RST.
    unread_bytes: u64,
}

impl fmt::Display for SentBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sent {} bytes, ", self.bytes)?;
        if let Some(error) = &self.error {
            write!(f, "then write() failed ({error}), ")?;
        }
        match self.unread_bytes {
            0 => f.write_str("closed with nothing unread"),
            unread => write!(f, "closed with {unread} bytes unread: a reset"),
        }
    }
}

/// Pauses, sends and closes, and never reads.
fn send_and_close(mut stream: TcpStream, config: &ServerConfig) -> SentBytes {
    let trace = config.trace;
    calls::sleep(config.sleep, trace);
    let mut bytes = 0;
    let error = calls::limit_sending(&stream, SEND_LIMIT, trace)
        .and_then(|()| calls::send_all(&mut stream, config.bytes, &mut bytes, trace))
        .err();
    let unread_bytes = calls::unread(&stream, trace);
    calls::close(stream, trace);
    SentBytes {
        bytes,
        error,
        unread_bytes,
    }
}
