//! An upstream connection: makes it, drives it to the end of its exchange, and then watches or keeps it.

use std::io;
use std::mem;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rstlab_wire::{
    Call, Flushes, Guarded, ReadOn, Seen, Sensor, Slots, SplitWrites, Stall, SysCall, Tape,
    monotonic_now,
};
use rstlab_witness::Dispatch;
use rustix::io::Errno;
use socket2::SockRef;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::oneshot::error::RecvError;
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{ProxyConfig, Writes};
use crate::connect;
use crate::exchange::{Came, Exchange, Finished, Handed};
use crate::outgoing::Outgoing;
use crate::pool::Pool;
use crate::spliced::{Borrow, Lent, UpstreamIo, borrowed};
use crate::trouble::Trouble;

/// How long a connection is watched after its response: a harmless reset comes within a round trip.
const WATCH: Duration = Duration::from_secs(1);

/// Most bytes of one `recv(2)` from the upstream. A client that does not read costs one such buffer.
///
/// CPU time of the proxy for a response of 614,400 bytes, against 128 KiB, paired rounds with one worker: 1.01 times with
/// 96 KiB, 1.05 with one segment of loopback (65,483 bytes), 1.43 with 64 KiB. Each read becomes one write to the client,
/// and a write that is little longer than a segment costs two. hyper's own buffer, which grows and shrinks with the
/// response, costs 1.7 times as much.
const READ_BUFFER_BYTES: usize = 96 * 1024;

/// The parts that all connections of a worker share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Explains ends and hands them to the takers.
    pub(crate) dispatch: Dispatch,
    pub(crate) tasks: TaskTracker,
    /// The process's descriptors for connections.
    pub(crate) slots: Slots,
    pub(crate) watchers: Semaphore,
    /// Only if upstream connections are kept.
    pub(crate) pool: Option<Pool>,
    /// The number of requests, of all workers.
    pub(crate) numbers: Arc<AtomicU64>,
    /// The order to give up what still runs.
    pub(crate) abandon: CancellationToken,
}

impl Shared {
    /// The number of the next request, from 1.
    pub(crate) fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// How a response came whose client's connection is gone: the client has left, or the proxy ends.
    pub(crate) fn gone(&self) -> Came {
        if self.abandon.is_cancelled() {
            Came::Abandoned
        } else {
            Came::ClientLeft
        }
    }

    /// What the client was handed; the sender is dropped unused if the client is gone, and the response with it.
    fn came(&self, handed: Result<Handed, RecvError>) -> Handed {
        let mut handed = handed.unwrap_or(Handed {
            came: Came::ClientLeft,
            body_bytes: 0,
            expected_bytes: None,
        });
        if handed.came == Came::ClientLeft {
            handed.came = self.gone();
        }
        handed
    }

    /// The right to watch a connection after its response, if the response came whole.
    fn watcher(&self, handed: Handed) -> Option<SemaphorePermit<'_>> {
        match handed.came {
            Came::Whole => self.watchers.try_acquire().ok(),
            Came::Cut(_)
            | Came::Nothing(_)
            | Came::Refused(_)
            | Came::ClientLeft
            | Came::Abandoned => None,
        }
    }

    /// Hands on that the proxy answered a request whose head it could not read, and why.
    pub(crate) fn refused(
        &self,
        client: SocketAddr,
        config: &ProxyConfig,
        status: StatusCode,
        why: String,
    ) {
        let number = self.next_number();
        let exchange = Exchange::new(number, client, None, config, false, self.dispatch.watch());
        self.dispatch.end(exchange.refused(status, why));
    }

    /// Hands on how an exchange ended. If there is something to explain, a task does that, so that no request waits.
    pub(crate) fn end(&self, finished: Finished) {
        let explains_all = self.dispatch.explains_all();
        let patience = finished.patience();
        let (ended, watch) = finished.into_ended();
        match patience.or(explains_all.then_some(Duration::ZERO)) {
            None => self.dispatch.end(ended),
            Some(patience) => {
                // Not in the task: the next exchange may begin before the task runs.
                let past = watch.over();
                let dispatch = self.dispatch.clone();
                self.tasks
                    .spawn(async move { dispatch.explain(ended, past, patience).await });
            }
        }
    }
}

type Io = TokioIo<Flushes<Guarded<SplitWrites<ReadOn<Stall<Sensor<TcpStream>>>>>>>;

/// Connects to the upstream, trying every address of its name; returns the address too.
///
/// # Errors
/// Refused, unreachable, unresolvable, or [`io::ErrorKind::TimedOut`].
pub(crate) async fn connect(
    config: &ProxyConfig,
    tape: &mut Tape,
) -> io::Result<(TcpStream, SocketAddr)> {
    let began = tape.begin();
    let (stream, server) = timeout(config.connect_timeout, connect::connect(config))
        .await
        .map_err(|_| Errno::TIMEDOUT)??;
    tape.note(began, SysCall::Connect, Ok(0));
    let began = tape.begin();
    stream.set_nodelay(true)?;
    tape.note(began, SysCall::Nodelay, Ok(0));
    Ok((stream, server))
}

/// What a request's end of the exchange tells the driver of the upstream connection.
#[derive(Debug)]
pub(crate) struct FromClient {
    /// What the client was handed.
    pub(crate) handed: oneshot::Receiver<Handed>,
    /// The response's body is to be spliced; `None` if no body is.
    pub(crate) borrows: Option<oneshot::Receiver<Borrow>>,
}

/// Sends a request on a connection, and starts a task that drives the connection to its end.
///
/// After a whole response the task gives the connection to the pool or watches it; then it hands on how the exchange
/// ended.
///
/// # Errors
/// There is no response.
pub(crate) async fn send<B>(
    request: Request<Outgoing<B>>,
    stream: TcpStream,
    mut exchange: Exchange,
    config: &ProxyConfig,
    shared: &Arc<Shared>,
    client: FromClient,
) -> hyper::Result<Response<Incoming>>
where
    B: http_body::Body<Data = bytes::Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let body = request.body();
    let has_body = !body.is_end_stream();
    let request_end = body.end.clone();
    let (out, back) = (
        body.signals.requests_out.clone(),
        body.signals.responses.clone(),
    );
    let tape = mem::take(&mut exchange.watch.tape);
    let io = Sensor::new(stream, Seen::new(tape, request_end.clone()));
    let io =
        Stall::sending(io, Some(config.send_timeout)).reading(config.read_timeout, request_end);
    let io = ReadOn::new(io, config.on_write_error);
    let io = match config.writes {
        Writes::Split if has_body => SplitWrites::new(io, config.gap),
        Writes::Split => SplitWrites::new(io, Duration::ZERO),
        Writes::Joined => SplitWrites::off(io),
    };
    let io = Guarded::new(io, request.method() == Method::HEAD);
    let (mut sender, connection) = http1::Builder::new()
        .read_buf_exact_size(Some(READ_BUFFER_BYTES))
        .handshake(TokioIo::new(Flushes::new(io, out, back)))
        .await?;
    let response = sender.send_request(request);
    let (tasks, shared) = (&shared.tasks, Arc::clone(shared));
    tasks.spawn(async move {
        if let Some(finished) = drive(connection, sender, client, exchange, &shared).await {
            shared.end(finished);
        }
    });
    response.await
}

/// Drives a connection until the client's part in the exchange is over, and then to its end; `None` if it is kept.
async fn drive<B>(
    mut connection: http1::Connection<Io, B>,
    mut sender: http1::SendRequest<B>,
    mut client: FromClient,
    exchange: Exchange,
    shared: &Shared,
) -> Option<Finished>
where
    B: http_body::Body<Data = bytes::Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut ended = None;
    let handed = loop {
        tokio::select! {
            biased;
            handed = &mut client.handed => break handed,
            borrow = borrowed(&mut client.borrows) => {
                // If the connection has ended, the drop tells the borrower.
                if ended.is_none() {
                    return lend(connection, borrow, client.handed, exchange, shared).await;
                }
            }
            result = std::future::poll_fn(|cx| connection.poll_without_shutdown(cx)), if ended.is_none() => {
                ended = Some(result);
            }
        }
    };
    let mut handed = shared.came(handed);
    if let Some(Err(error)) = &ended {
        handed.came = handed.came.with_end(Trouble::of(error));
    }
    let watcher = shared.watcher(handed);
    let at = monotonic_now();
    // A server that answers HEAD with a body, against RFC 9110 §9.3.2, may send the body later than the head: as the
    // answer to the next request, and no look at the socket could tell.
    let persists = shared.pool.is_some()
        && !exchange.is_head()
        && watcher.is_some()
        && ended.is_none()
        && persists(&mut connection, &mut sender).await;
    let parts = connection.into_parts();
    let io = parts.io.into_inner().into_inner().into_inner();
    // Stray bytes may come behind the answer.
    let persists = persists && parts.read_buf.is_empty();
    let ends = HandedAt {
        handed,
        at,
        persists,
    };
    end(io.into_inner(), ends, watcher, exchange, shared).await
}

/// Lends the connection to the response's body, and takes over again when the client's part in the exchange is over.
///
/// hyper has read the head and at most one piece of the body, which it has handed on; so its buffer is empty.
async fn lend<B>(
    connection: http1::Connection<Io, B>,
    borrow: Borrow,
    handed: oneshot::Receiver<Handed>,
    exchange: Exchange,
    shared: &Shared,
) -> Option<Finished>
where
    B: http_body::Body<Data = bytes::Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let guarded = connection.into_parts().io.into_inner().into_inner();
    let persists = shared.pool.is_some() && !guarded.ends_connection();
    let (lent, back) = Lent::new(guarded.into_inner().into_inner());
    // If the client is gone, the connection comes back at once.
    let _ = borrow.send(lent);
    let handed = shared.came(handed.await);
    let at = monotonic_now();
    // Comes back when the body has ended or is dropped.
    let io = back.await.ok()?;
    let ends = HandedAt {
        handed,
        at,
        persists,
    };
    end(io, ends, shared.watcher(handed), exchange, shared).await
}

/// The end of the client's part in an exchange.
struct HandedAt {
    handed: Handed,
    at: Duration,
    /// The connection may carry another request, as far as HTTP is concerned.
    persists: bool,
}

/// Keeps or watches the connection after a whole response; `None` if it is kept.
async fn end(
    io: UpstreamIo,
    HandedAt {
        handed,
        at,
        persists,
    }: HandedAt,
    watcher: Option<SemaphorePermit<'_>>,
    exchange: Exchange,
    shared: &Shared,
) -> Option<Finished> {
    let (stream, mut seen) = io.into_inner().into_inner().into_parts();
    if handed.came == Came::Whole {
        seen.response_whole();
    }
    // An answer may come before the end of its request.
    let in_step = seen.is_request_whole() && seen.is_head_written();
    let mut finished = exchange.finished(seen, handed, at);
    if let Some(pool) = &shared.pool
        && persists
        && in_step
        && watcher.is_some()
        && finished.seen.failure().is_none()
    {
        shared.keep(pool, stream, finished);
        return None;
    }
    let stream = match watcher {
        Some(_) => finished.watch(stream, &shared.abandon).await,
        None => stream,
    };
    // Only an exchange that had a connection has a phase in the log.
    let is_logged = handed.came != Came::Whole || finished.patience().is_some();
    if is_logged || shared.dispatch.explains_all() {
        finished.exchange.locate(&stream);
    }
    Some(finished)
}

/// Whether the connection may carry another request (RFC 9112 §9.3), as hyper decides.
///
/// hyper is ready for another request only when the kernel has the whole body (`Buffered::can_headers_buf`). If some
/// of the body is unsent when the response is whole, this waits for it as long as a connection is watched.
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

impl Finished {
    /// Waits for the connection's end after a whole response, a FIN or a RST, for [`WATCH`] at most, and until `abandon` is
    /// cancelled.
    pub(crate) async fn watch(
        &mut self,
        stream: TcpStream,
        abandon: &CancellationToken,
    ) -> TcpStream {
        let mut watched = Sensor::new(stream, mem::take(&mut self.seen));
        // Small, because it lies in the task of each connection: 4 KiB cost 3 % of the CPU time of a small response.
        let mut rest = [0; 512];
        let end = async { while matches!(watched.read(&mut rest).await, Ok(1..)) {} };
        let in_time = abandon.run_until_cancelled(timeout(WATCH, end)).await;
        let (stream, mut seen) = watched.into_parts();
        if matches!(in_time, Some(Ok(()))) && seen.failure().is_none() {
            // A read tells of the FIN alone; a RST that came behind the FIN waits in the socket as an error.
            let began = seen.tape.begin();
            if let Ok(Some(error)) = SockRef::from(&stream).take_error() {
                seen.tape.note(began, SysCall::SoError, Err(&error));
                seen.failed(Call::SoError, &error);
            }
        }
        self.seen = seen;
        stream
    }
}
