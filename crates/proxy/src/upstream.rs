use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rstlab_wire::{Call, ReadOn, Seen, Sensor, SplitWrites, Stall};
use socket2::SockRef;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::config::{Config, Writes};
use crate::report::{Exchange, Outcome, Stats};
use crate::trouble::Trouble;

/// How long a connection is watched after its response: a harmless reset comes within a round trip.
const WATCH: Duration = Duration::from_secs(1);

/// Most bytes of one `recv(2)` from the upstream. hyper's own buffer grows and shrinks with what comes; with a
/// large one of a fixed size, and the allocator of `main.rs`, a response of 614,400 bytes costs the proxy 279 µs
/// of CPU time in place of 469, and one of 1,024 bytes as much as before.
const READ_BUFFER_BYTES: usize = 128 * 1024;

/// What all connections of a proxy share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) stats: Arc<Stats>,
    tasks: TaskTracker,
    watchers: Semaphore,
}

impl Shared {
    pub(crate) fn new(
        config: Config,
        stats: Arc<Stats>,
        tasks: TaskTracker,
        watchers: usize,
    ) -> Self {
        Self {
            config,
            stats,
            tasks,
            watchers: Semaphore::new(watchers),
        }
    }
}

type Io = TokioIo<SplitWrites<ReadOn<Stall<Sensor<TcpStream>>>>>;

/// Connects to the upstream; every address of its name is tried.
///
/// # Errors
/// Refused, unreachable, unresolvable, or [`io::ErrorKind::TimedOut`].
pub(crate) async fn connect(config: &Config) -> io::Result<TcpStream> {
    let connect = TcpStream::connect(&config.upstream);
    let stream = timeout(config.connect_timeout, connect)
        .await
        .map_err(|_| rustix::io::Errno::TIMEDOUT)??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Starts HTTP on a connection and a task that drives it to its end.
///
/// The task learns from `outcome` what came of the exchange, watches the connection if the response was
/// whole, and reports.
pub(crate) async fn start<B>(
    stream: TcpStream,
    has_body: bool,
    exchange: Arc<Exchange>,
    shared: Arc<Shared>,
    outcome: oneshot::Receiver<Outcome>,
) -> hyper::Result<http1::SendRequest<B>>
where
    B: http_body::Body<Data = bytes::Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let config = &shared.config;
    let seen = exchange.seen.clone();
    let io = Sensor::new(stream, seen.clone());
    let io = Stall::new(
        io,
        seen.clone(),
        Some(config.read_timeout),
        Some(config.send_timeout),
    );
    let io = ReadOn::new(io, config.on_write_error);
    let io = match config.writes {
        Writes::Split { gap } if has_body => SplitWrites::new(io, seen, gap),
        Writes::Split { .. } => SplitWrites::new(io, seen, Duration::ZERO),
        Writes::Joined => SplitWrites::off(io, seen),
    };
    let (sender, connection) = http1::Builder::new()
        .read_buf_exact_size(Some(READ_BUFFER_BYTES))
        .handshake(TokioIo::new(io))
        .await?;
    let tasks = shared.tasks.clone();
    tasks.spawn(drive(connection, outcome, exchange, shared));
    Ok(sender)
}

async fn drive<B>(
    mut connection: http1::Connection<Io, B>,
    mut outcome: oneshot::Receiver<Outcome>,
    exchange: Arc<Exchange>,
    shared: Arc<Shared>,
) where
    B: http_body::Body<Data = bytes::Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut ended = None;
    let outcome = loop {
        tokio::select! {
            biased;
            // Without an outcome the client is gone, and the response with it.
            outcome = &mut outcome => break outcome.unwrap_or(Outcome::Client),
            result = std::future::poll_fn(|cx| connection.poll_without_shutdown(cx)), if ended.is_none() => {
                ended = Some(result);
            }
        }
    };
    let outcome = match (outcome, ended) {
        // The response was cut because the request could not be finished.
        (Outcome::Truncated(_), Some(Err(error)))
            if matches!(Trouble::of(&error), Trouble::Client(_)) =>
        {
            Outcome::Client
        }
        (outcome, _) => outcome,
    };
    let io = connection.into_parts().io.into_inner();
    let stream = io.into_inner().into_inner().into_inner().into_inner();
    if outcome == Outcome::Whole
        && let Ok(_slot) = shared.watchers.try_acquire()
    {
        watch(stream, &exchange.seen).await;
    }
    exchange.finish(outcome, &shared.stats);
}

/// Waits for what comes after a whole response: FIN, RST, or nothing for a second.
async fn watch(mut stream: TcpStream, seen: &Seen) {
    let mut rest = [0; 4096];
    let end = async {
        loop {
            match stream.read(&mut rest).await {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => return seen.failed(Call::Recv, &error),
            }
        }
    };
    if timeout(WATCH, end).await.is_ok()
        // After a FIN a read says no more than that; a RST that came behind it waits as an error.
        && let Ok(Some(error)) = SockRef::from(&stream).take_error()
    {
        seen.failed(Call::SoError, &error);
    }
}
