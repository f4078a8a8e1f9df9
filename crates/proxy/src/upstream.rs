use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rstlab_wire::{Call, ReadOn, Sensor, SplitWrites, Stall, SysCall, Tape, monotonic_now};
use rstlab_witness::Witness;
use socket2::SockRef;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::config::{Config, Writes};
use crate::pool::Pool;
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
    /// Says why a connection was reset.
    pub(crate) witness: Witness,
    pub(crate) tasks: TaskTracker,
    pub(crate) watchers: Semaphore,
    /// Only if upstream connections are kept.
    pub(crate) pool: Option<Pool>,
}

impl Shared {
    pub(crate) fn new(
        config: Config,
        stats: Arc<Stats>,
        witness: Witness,
        tasks: TaskTracker,
        watchers: usize,
    ) -> Self {
        Self {
            pool: config.upstream_keepalive.then(Pool::default),
            config,
            stats,
            witness,
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
pub(crate) async fn connect(config: &Config, tape: &Tape) -> io::Result<TcpStream> {
    let began = tape.begin();
    let connect = TcpStream::connect(&config.upstream);
    let stream = timeout(config.connect_timeout, connect)
        .await
        .map_err(|_| rustix::io::Errno::TIMEDOUT)??;
    tape.note(began, SysCall::Connect, Ok(0));
    let began = tape.begin();
    stream.set_nodelay(true)?;
    tape.note(began, SysCall::Nodelay, Ok(0));
    Ok(stream)
}

/// Sends a request on a connection, and starts a task that drives the connection to its end.
///
/// The task learns from `outcome` what came of the exchange. If the response was whole it gives the connection
/// to the pool or watches it; then it reports.
///
/// # Errors
/// There is no response.
pub(crate) async fn send<B>(
    request: Request<B>,
    has_body: bool,
    stream: TcpStream,
    exchange: Arc<Exchange>,
    shared: Arc<Shared>,
    outcome: oneshot::Receiver<Outcome>,
) -> hyper::Result<Response<Incoming>>
where
    B: http_body::Body<Data = bytes::Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let config = &shared.config;
    let seen = exchange.seen.clone();
    let io = Sensor::new(stream, seen.clone()).taped(exchange.watch.tape.clone());
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
    let (mut sender, connection) = http1::Builder::new()
        .read_buf_exact_size(Some(READ_BUFFER_BYTES))
        .handshake(TokioIo::new(io))
        .await?;
    let response = sender.send_request(request);
    let tasks = shared.tasks.clone();
    tasks.spawn(drive(connection, sender, outcome, exchange, shared));
    response.await
}

async fn drive<B>(
    mut connection: http1::Connection<Io, B>,
    mut sender: http1::SendRequest<B>,
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
    // Set nowhere else.
    let _ = exchange.ended.set(monotonic_now());
    let outcome = match (outcome, &ended) {
        // The response was cut because the request could not be finished.
        (Outcome::Truncated(_), Some(Err(error)))
            if matches!(Trouble::of(error), Trouble::Client(_)) =>
        {
            Outcome::Client
        }
        (outcome, _) => outcome,
    };
    let slot = match outcome {
        Outcome::Whole => shared.watchers.try_acquire().ok(),
        _ => None,
    };
    let seen = &exchange.seen;
    let persists = shared.pool.is_some()
        && slot.is_some()
        && ended.is_none()
        && seen.is_request_whole()
        && persists(&mut connection, &mut sender).await;
    let parts = connection.into_parts();
    let stream = parts.io.into_inner();
    let stream = stream.into_inner().into_inner().into_inner().into_inner();
    // An answer may come before its request, and bytes that nobody asked for behind it.
    let in_step = seen.is_head_written() && parts.read_buf.is_empty();
    if persists && in_step && seen.failure().is_none() {
        return shared.keep(stream, exchange);
    }
    if slot.is_some() {
        watch(stream, &exchange).await;
    }
    shared.finish(&exchange, outcome);
}

/// Whether the connection may carry another request (RFC 9112 §9.3): hyper decides that.
///
/// It is ready for one only when the kernel has the whole body (`Buffered::can_headers_buf`). What is left of
/// that when the response is whole gets as long as a connection is watched.
async fn persists<B>(
    connection: &mut http1::Connection<Io, B>,
    sender: &mut http1::SendRequest<B>,
) -> bool
where
    B: http_body::Body<Data = bytes::Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let ready = std::future::poll_fn(|cx| {
        if connection.poll_without_shutdown(cx).is_ready() {
            return Poll::Ready(false);
        }
        sender.poll_ready(cx).map(|ready| ready.is_ok())
    });
    timeout(WATCH, ready).await.unwrap_or(false)
}

/// Waits for what comes after a whole response: FIN, RST, or nothing for a second.
pub(crate) async fn watch(stream: TcpStream, exchange: &Exchange) {
    let (seen, tape) = (&exchange.seen, &exchange.watch.tape);
    // Tells the account and the tape of every read.
    let mut watched = Sensor::new(stream, seen.clone()).taped(tape.clone());
    let mut rest = [0; 4096];
    let end = async { while matches!(watched.read(&mut rest).await, Ok(1..)) {} };
    if timeout(WATCH, end).await.is_ok() && seen.failure().is_none() {
        // After a FIN a read says no more than that; a RST that came behind it waits as an error.
        let began = tape.begin();
        if let Ok(Some(error)) = SockRef::from(&watched.into_inner()).take_error() {
            tape.note(began, SysCall::SoError, Err(&error));
            seen.failed(Call::SoError, &error);
        }
    }
}
