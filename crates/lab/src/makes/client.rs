//! `rstlab client`: connects, sends a few bytes or none, and reads until the stream ends cleanly or is reset.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use rstlab_cli::Settings;

use crate::makes::calls;
use crate::shared::errno;
use crate::shared::output::print;

/// Time limit for connecting.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// Longest wait for the next byte.
const READ_LIMIT: Duration = Duration::from_secs(60);

/// Bytes of one `read(2)`, as in the article.
const READ_BYTES: usize = 4096;

/// The most bytes to send: the server never reads them, so they must fit in the sockets' buffers.
const MAX_SPAM_BYTES: u64 = 64 * 1024;

/// Connect to `rstlab server`, read to the end, and print what read() returned last
///
/// After a clean end it prints "Read 600000 bytes, final return value was 0, errno was 0". After a reset the values
/// are -1 and 104, and the next line is "Connection reset by peer". If no byte comes for 60 seconds, the client gives
/// up (errno 11).
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 the stream ended, cleanly or with a reset, 1 no connection, 2 bad settings."
)]
pub struct ClientArgs {
    /// Send bytes before reading; the server does not read them
    #[arg(long)]
    spam: bool,

    /// Number of bytes that --spam sends, 1 to 65536
    #[arg(long, default_value = "100", value_name = "N")]
    spam_bytes: String,

    /// Port on 127.0.0.1 to connect to
    #[arg(long, default_value = "8125")]
    port: String,

    /// Print each system call on the socket on standard error, as strace does: time (UTC), call, result, duration
    #[arg(long)]
    trace: bool,
}

/// The settings of the client, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientConfig {
    /// Port on 127.0.0.1.
    pub port: u16,
    /// Bytes to send before reading; may be zero.
    pub spam_bytes: u64,
    /// Whether each system call on the socket is printed on standard error.
    pub trace: bool,
}

impl ClientArgs {
    /// The settings, or `None` if one of them is bad.
    pub fn config(&self, settings: &mut Settings) -> Option<ClientConfig> {
        let port = crate::makes::server::port(settings, &self.port);
        let allowed = "a number of bytes, 1 to 65536";
        let spam_bytes = settings.read("--spam-bytes", &self.spam_bytes, allowed, |text| {
            text.parse()
                .ok()
                .filter(|bytes| (1..=MAX_SPAM_BYTES).contains(bytes))
        });
        Some(ClientConfig {
            port: port?,
            spam_bytes: spam_bytes.map(|bytes| if self.spam { bytes } else { 0 })?,
            trace: self.trace,
        })
    }
}

/// Connects, reads to the end, and prints how the stream ended.
///
/// # Errors
/// It cannot connect, or standard output is closed.
pub fn execute(config: &ClientConfig) -> anyhow::Result<ExitCode> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, config.port));
    let stream = calls::connect(address, CONNECT_LIMIT, config.trace)
        .with_context(|| format!("cannot connect to {address}"))?;
    let end = observe(stream, config.spam_bytes, config.trace)?;
    print([format!("{end}\n")])?;
    Ok(ExitCode::SUCCESS)
}

/// How a stream ended, printed in the words of the article.
#[derive(Debug)]
struct StreamEnd {
    /// Bytes read before the end.
    read_bytes: u64,
    /// The error of the last read; `None` is a clean end.
    error: Option<io::Error>,
}

impl fmt::Display for StreamEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { read_bytes, error } = self;
        write!(f, "Read {read_bytes} bytes, final return value was ")?;
        let Some(error) = error else {
            return f.write_str("0, errno was 0");
        };
        let errno = error.raw_os_error().unwrap_or(0);
        write!(f, "-1, errno was {errno}\n{}", errno::text(errno))
    }
}

/// Sends `spam_bytes`, then reads until there is no more.
///
/// # Errors
/// The time limits cannot be set. A failed read is not an error here, but the end that is to be observed.
fn observe(mut stream: TcpStream, spam_bytes: u64, trace: bool) -> io::Result<StreamEnd> {
    calls::limit_reading(&stream, READ_LIMIT, trace)?;
    calls::limit_sending(&stream, READ_LIMIT, trace)?;
    if let Err(error) = calls::send_all(&mut stream, spam_bytes, &mut 0, trace) {
        // What the server has sent may still be in the receive queue, so the client reads on.
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
    Ok(StreamEnd { read_bytes, error })
}
