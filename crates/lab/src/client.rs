//! `rstlab client`: connects, sends a few bytes or none, and reads to the end, whichever end it is.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use rstlab_cli::Settings;

use crate::calls;
use crate::output::print;
use crate::strace::Trace;

/// Time for the connection to come about.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// Longest wait for the next byte.
const READ_LIMIT: Duration = Duration::from_secs(60);

/// Bytes of one `read(2)`, as in the article.
const READ_BYTES: usize = 4096;

/// Most bytes to send: they must fit in the socket's buffers, for the server never reads them.
const MOST_SPAM_BYTES: usize = 64 * 1024;

/// Connects to `rstlab server`, reads to the end, and prints what read() returned last.
///
/// It prints `Read 600000 bytes, final return value was 0, errno was 0` after a clean end. After a reset the
/// values are -1 and 104, and the next line is `Connection reset by peer`. It exits with 0 in both cases,
/// with 1 if it cannot connect. After 60 seconds without a byte it gives up (errno 11).
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Send bytes before reading: the server will not read them.
    #[arg(long)]
    spam: bool,

    /// How many, 1 to 65536.
    #[arg(long, default_value = "100")]
    spam_bytes: String,

    /// Port on 127.0.0.1 to connect to.
    #[arg(long, default_value = "8125")]
    port: String,

    /// Tell each system call on the socket on standard error, with time (UTC), result and duration.
    ///
    /// The form is strace's, so that one can be read beside the other.
    #[arg(long)]
    trace: bool,
}

/// What the client does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Port on 127.0.0.1.
    pub port: u16,
    /// Bytes to send before reading; may be zero.
    pub spam_bytes: usize,
    /// Whether each system call on the socket is told on standard error.
    pub trace: bool,
}

impl Args {
    /// The settings, or `None` if one of them is bad.
    pub fn config(&self, settings: &mut Settings) -> Option<Config> {
        let port = crate::server::port(settings, &self.port);
        let allowed = "a number of bytes, 1 to 65536";
        let spam_bytes = settings.read("--spam-bytes", &self.spam_bytes, allowed, |text| {
            text.parse()
                .ok()
                .filter(|bytes| (1..=MOST_SPAM_BYTES).contains(bytes))
        });
        Some(Config {
            port: port?,
            spam_bytes: spam_bytes.map(|bytes| if self.spam { bytes } else { 0 })?,
            trace: self.trace,
        })
    }
}

/// Connects, observes, prints.
///
/// # Errors
/// It cannot connect, or standard output is closed.
pub fn execute(config: &Config) -> anyhow::Result<ExitCode> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, config.port));
    let trace = Trace::new(config.trace);
    let stream = calls::connect(address, CONNECT_LIMIT, trace)
        .with_context(|| format!("cannot connect to {address}"))?;
    let end = observe(stream, config.spam_bytes, trace)?;
    print([format!("{end}\n")])?;
    Ok(ExitCode::SUCCESS)
}

/// How a stream ended.
#[derive(Debug)]
pub struct End {
    /// Bytes read before the end.
    pub read_bytes: u64,
    /// The failure of the last read; `None` is a clean end.
    pub error: Option<io::Error>,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { read_bytes, error } = self;
        write!(f, "Read {read_bytes} bytes, final return value was ")?;
        let Some(error) = error else {
            return f.write_str("0, errno was 0");
        };
        let errno = error.raw_os_error().unwrap_or(0);
        let text = error.to_string();
        let text = text.split(" (os error").next().unwrap_or_default();
        write!(f, "-1, errno was {errno}\n{text}")
    }
}

/// Sends `spam_bytes`, then reads until there is no more.
///
/// # Errors
/// The socket takes no time limits. A failure to read is not an error but what was to be observed.
fn observe(mut stream: TcpStream, spam_bytes: usize, trace: Trace) -> io::Result<End> {
    calls::limit_reading(&stream, READ_LIMIT, trace)?;
    calls::limit_sending(&stream, READ_LIMIT, trace)?;
    if let Err(error) = send(&mut stream, spam_bytes, trace) {
        // What the server has sent may still lie in the queue: read on.
        eprintln!("rstlab client: write() failed: {error}");
    }
    let mut buf = [0; READ_BYTES];
    let mut read_bytes = 0;
    let error = loop {
        match calls::receive(&mut stream, &mut buf, trace) {
            Ok(0) => break None,
            Ok(bytes) => read_bytes += bytes as u64,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break Some(error),
        }
    };
    calls::close(stream, trace);
    Ok(End { read_bytes, error })
}

fn send(stream: &mut TcpStream, bytes: usize, trace: Trace) -> io::Result<()> {
    let bytes = vec![b'x'; bytes];
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        match calls::send(stream, rest, trace) {
            Ok(sent) => rest = &rest[sent..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
