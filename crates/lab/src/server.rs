//! `rstlab server`: sends, and closes without ever reading.
//!
//! If the client has sent anything, those bytes lie unread at `close()`, and the kernel answers with a RST
//! instead of a FIN (`tcp_close`: `TCP_ABORT_ON_CLOSE`). What had not been sent by then is lost.

use std::fmt;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use rstlab_cli::Settings;

use crate::calls;
use crate::strace::Trace;

/// Connections served at once; the others wait in the kernel's queue.
const MOST_CONNECTIONS: usize = 1000;

/// Longest wait for a client that takes no bytes.
const SEND_LIMIT: Duration = Duration::from_secs(60);

/// Bytes of one `write(2)`.
const PIECE_BYTES: usize = 64 * 1024;

static PIECE: [u8; PIECE_BYTES] = [b'x'; PIECE_BYTES];

/// Sends bytes to every client and closes without reading: the server of the story, without any HTTP.
///
/// It prints one line for each connection, and runs until it is interrupted. Run `rstlab client --spam`
/// against it and see the reset, then without --spam and see none.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Port on 127.0.0.1 to listen on; 0 takes a free one (the first line printed says which).
    #[arg(long, default_value = "8125")]
    port: String,

    /// Bytes to send on each connection.
    #[arg(long, default_value = "600000")]
    bytes: String,

    /// Pause after accept() and before the first byte is sent.
    ///
    /// It gives the client time to send what will stay unread, so that the reset is certain and comes
    /// while the last bytes are still on their way. After the last byte, a pause would let the client
    /// read everything first: the reset would still come, and destroy nothing.
    #[arg(long, default_value = "1s")]
    sleep: String,

    /// Tell each system call on the socket on standard error, with time (UTC), result and duration.
    ///
    /// The form is strace's, so that one can be read beside the other.
    #[arg(long)]
    trace: bool,
}

/// What the server does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Port on 127.0.0.1; 0 is any free one.
    pub port: u16,
    /// Bytes to send on each connection.
    pub bytes: u64,
    /// Pause before the first byte.
    pub sleep: Duration,
    /// Whether each system call on a socket is told on standard error.
    pub trace: bool,
}

impl Args {
    /// The settings, or `None` if one of them is bad.
    pub fn config(&self, settings: &mut Settings) -> Option<Config> {
        let port = port(settings, &self.port);
        let bytes = settings.bytes("--bytes", &self.bytes);
        let sleep = settings.time("--sleep", &self.sleep);
        Some(Config {
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

/// Listens, says where, and serves for ever.
///
/// # Errors
/// The port is in use, or standard output is closed.
pub fn execute(config: &Config) -> anyhow::Result<ExitCode> {
    let trace = Trace::new(config.trace);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, config.port));
    let listener = calls::listen(address, trace)
        .with_context(|| format!("cannot listen on {address}; --port sets another port"))?;
    let address = calls::local_address(&listener, trace)?;
    let mut out = io::stdout();
    writeln!(out, "listening on {address}")?;
    out.flush()?;
    serve(&listener, config, &Mutex::new(out))
}

/// Serves every connection in a thread of its own, and writes a line to `out` for each.
pub fn serve<W: Write + Send>(listener: &TcpListener, config: &Config, out: &Mutex<W>) -> ! {
    let slots = Slots::default();
    let trace = Trace::new(config.trace);
    let say = |line: &dyn fmt::Display| {
        // Nobody reads any more: no reason to stop serving.
        let mut out = lock(out);
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    };
    thread::scope(|scope| {
        loop {
            let slot = slots.take();
            let served = calls::accept(listener, trace).and_then(|(stream, peer)| {
                thread::Builder::new().spawn_scoped(scope, move || {
                    let sent = send_and_close(stream, config);
                    say(&format_args!("{peer}: {sent}"));
                    drop(slot);
                })
            });
            if let Err(error) = served {
                eprintln!("rstlab server: no connection served: {error}");
                // Out of descriptors, memory or threads: at once, it would fail again.
                thread::sleep(Duration::from_millis(100));
            }
        }
    })
}

/// How a connection went.
#[derive(Debug)]
pub struct Sent {
    /// Bytes the kernel took from us.
    pub bytes: u64,
    /// Why it took no more.
    pub error: Option<io::Error>,
    /// Bytes that lay unread at `close()`: more than zero is a RST.
    pub unread_bytes: u64,
}

impl fmt::Display for Sent {
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

/// Pauses, sends, closes. Never reads.
pub fn send_and_close(mut stream: TcpStream, config: &Config) -> Sent {
    let trace = Trace::new(config.trace);
    calls::sleep(config.sleep, trace);
    let mut bytes = 0;
    let error = calls::limit_sending(&stream, SEND_LIMIT, trace)
        .and_then(|()| send(&mut stream, config.bytes, &mut bytes, trace))
        .err();
    let unread_bytes = calls::unread(&stream, trace);
    calls::close(stream, trace);
    Sent {
        bytes,
        error,
        unread_bytes,
    }
}

fn send(stream: &mut TcpStream, bytes: u64, sent: &mut u64, trace: Trace) -> io::Result<()> {
    while *sent < bytes {
        let piece = PIECE
            .len()
            .min(usize::try_from(bytes - *sent).unwrap_or(usize::MAX));
        match calls::send(stream, &PIECE[..piece], trace) {
            Ok(written) => *sent += written as u64,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Counts the connections that are served, and makes the next one wait when there are too many.
#[derive(Default)]
struct Slots {
    taken: Mutex<usize>,
    freed: Condvar,
}

struct Slot<'a>(&'a Slots);

impl Slots {
    fn take(&self) -> Slot<'_> {
        let taken = lock(&self.taken);
        let mut taken = self
            .freed
            .wait_while(taken, |taken| *taken >= MOST_CONNECTIONS)
            .unwrap_or_else(PoisonError::into_inner);
        *taken += 1;
        Slot(self)
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        *lock(&self.0.taken) -= 1;
        self.0.freed.notify_one();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A number and a line of text: both are sound at any moment.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
