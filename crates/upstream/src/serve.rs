use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rstlab_wire::close::{self, Bounds, Closed, Peer, Policy};
use rstlab_wire::{
    HeadGate, MAX_HEAD_BYTES, Reads, Seen, Sensor, Stall, SysCall, Tape, accept, chain,
};
use rstlab_witness::Witness;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::app::{self, Answer, Exchange, Kind};
use crate::case::Case;
use crate::child;
use crate::last::UntilLast;
use crate::{Config, Mode};

/// Longest time until a request's head has come.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

/// Longest time between two successful writes.
const SEND_STALL: Duration = Duration::from_secs(60);

/// Most bytes held for reading a connection, and about as many for writing it.
const MAX_BUFFER_BYTES: usize = 128 * 1024;

/// Why [`Mode::Kill`] can't be served.
const NO_PROGRAM: &str =
    "mode kill answers in processes of its own: it needs the path of the program rstlab-upstream";

/// How long a connection that has not sent a byte may live on after the order to stop. Its client has
/// connected, and its request may be on the way.
const IDLE_GRACE: Duration = Duration::from_secs(1);

/// Whoever is refused may still be sending: reading on lets it get the answer (RFC 9112 §9.6).
const REFUSAL: Policy = Policy::Linger(Bounds {
    time: Duration::from_secs(5),
    bytes: None,
});

/// How a connection went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// What was answered; `None` if no request came.
    pub answer: Option<Answer>,
    /// Bytes of the head that were read.
    pub head_bytes: u64,
    /// Bytes after the head that were read before the response, as they stood on the wire.
    pub body_bytes: u64,
    /// Everything that the client had announced was read.
    pub request_whole: bool,
    /// Everything that was announced to the client was sent.
    pub response_whole: bool,
    /// The queues and the peer at the close.
    pub closed: Closed,
}

/// Serves until `stop` is cancelled, then finishes what runs, for ten seconds at most. `witness` says of each
/// connection that was reset why.
///
/// # Errors
/// The listener fails, or [`Mode::Kill`] has no program to start ([`Config::program`]).
pub async fn run(
    listener: TcpListener,
    config: Config,
    witness: Witness,
    stop: CancellationToken,
) -> io::Result<()> {
    if config.mode == Mode::Kill && config.program.is_none() {
        return Err(io::Error::new(io::ErrorKind::Unsupported, NO_PROGRAM));
    }
    tracing::info!(
        address = %listener.local_addr()?,
        mode = config.mode.as_str(),
        status = config.status.as_u16(),
        response_bytes = config.response_bytes,
        think = ?config.think,
        body = ?config.body_policy(),
        close = ?config.close_policy(),
        witness = %witness.level(),
        not_more = witness.why_not_more(),
        "listening"
    );
    // A child costs its pipe, the signal of its end, and for a moment the other end of the pipe.
    let descriptors_each = if config.mode == Mode::Kill { 4 } else { 1 };
    let config = Arc::new(config);
    let handle = {
        let stop = stop.clone();
        move |stream: TcpStream, peer| {
            let (config, stop) = (Arc::clone(&config), stop.clone());
            let watch = witness.watch();
            watch.tape.note(watch.tape.begin(), SysCall::Accept4, Ok(0));
            let case = Case {
                witness: witness.clone(),
                watch,
                server: stream.local_addr(),
                client: peer,
                mode: config.mode,
            };
            async move {
                let summary = match &config.program {
                    Some(program) if config.mode == Mode::Kill => {
                        child::supervise(stream, program, &config, stop.clone()).await
                    }
                    _ => {
                        Ok(connection(stream, config, stop.clone(), case.watch.tape.clone()).await)
                    }
                };
                match summary {
                    Ok(summary) => case.tell(&summary, &stop).await,
                    Err(error) => tracing::error!(%peer, %error, "not answered"),
                }
            }
        }
    };
    accept::serve(
        listener,
        accept::capacity(descriptors_each, 0),
        stop,
        TaskTracker::new(),
        handle,
    )
    .await
}

/// Serves one connection in this process: one request, one response, and then the close that the mode asks for.
/// [`Mode::Kill`] is here what [`run`]'s child would do, but for the killing.
pub async fn connection(
    stream: TcpStream,
    config: Arc<Config>,
    stop: CancellationToken,
    tape: Tape,
) -> Summary {
    exchange(stream, config, stop.clone(), tape)
        .await
        .close(stop)
        .await
}

/// A connection whose response is out, and which is still open.
pub(crate) struct Answered {
    pub(crate) stream: TcpStream,
    /// How it went until now.
    pub(crate) so_far: SoFar,
    policy: Policy,
    /// The system calls on it.
    pub(crate) tape: Tape,
}

/// How a connection went, but for its end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SoFar {
    pub(crate) answer: Option<Answer>,
    head_bytes: u64,
    body_bytes: u64,
    request_whole: bool,
    response_whole: bool,
    /// A call has told of the client's RST, which the socket tells once.
    was_reset: bool,
}

impl SoFar {
    pub(crate) fn ended(self, mut closed: Closed) -> Summary {
        if self.was_reset {
            closed.peer = Peer::Reset;
        }
        Summary {
            answer: self.answer,
            head_bytes: self.head_bytes,
            body_bytes: self.body_bytes,
            request_whole: self.request_whole,
            response_whole: self.response_whole,
            closed,
        }
    }
}

impl Answered {
    /// Ends the connection; whoever waits for the next request on it waits until `stop` at most.
    pub(crate) async fn close(mut self, stop: CancellationToken) -> Summary {
        if let Policy::OnArrival(limit) = self.policy {
            tokio::select! {
                () = close::arrival(&self.stream, limit, &self.tape) => {}
                () = stop.cancelled() => {}
            }
            self.policy = Policy::Immediate;
        }
        let closed = close::close(self.stream, self.policy, &self.tape).await;
        self.so_far.ended(closed)
    }
}

/// One request and one response.
///
/// hyper reads through a gate that stops after the head in the modes that ignore the body, and never
/// shuts the connection down: the close policy does, on the socket itself.
pub(crate) async fn exchange(
    stream: TcpStream,
    config: Arc<Config>,
    stop: CancellationToken,
    tape: Tape,
) -> Answered {
    let began = tape.begin();
    // Fails only on a connection that is gone already; reading will tell.
    let nodelay = stream.set_nodelay(true);
    tape.note(began, SysCall::Nodelay, nodelay.as_ref().map(|()| 0));
    let close_policy = config.close_policy();
    let reads = config.body_policy().reads();
    let keep_alive = config.mode == Mode::IdleClose;
    let seen = Seen::default();
    let exchange = Exchange::default();

    let io = Sensor::new(stream, seen.clone()).taped(tape.clone());
    let io = HeadGate::new(
        Stall::new(io, Seen::default(), None, Some(SEND_STALL)),
        reads,
    );
    let last = exchange.last_byte();
    let io = UntilLast::new(io, last.clone());
    let app = app::service(config, exchange.clone());
    let mut connection = http1::Builder::new()
        .keep_alive(keep_alive)
        // A client that has shut down its side still wants its answer.
        .half_close(true)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_header_size(MAX_HEAD_BYTES)
        .max_buf_size(MAX_BUFFER_BYTES)
        .serve_connection(TokioIo::new(io), TowerToHyperService::new(app));

    let served = async {
        (&mut connection).await?;
        // When a client offers an upgrade (`Upgrade: h2c`), hyper is done before it has written out what it
        // holds (`Dispatcher::poll_inner`; for other requests hyper's pull request 4018 has cured that).
        // Polled again, it has forgotten the upgrade and writes the rest.
        (&mut connection).await
    };
    let served = tokio::select! {
        served = served => served,
        () = idle_after(stop, seen.clone()) => Ok(()),
    };
    // hyper is through with a whole response by itself, and is stopped behind one that is kept or cut.
    let response_whole = served.is_ok() || (last.is_given() && keep_alive);
    let answer = match served {
        Ok(()) => exchange.answer(),
        Err(_) if last.is_given() => exchange.answer(),
        Err(error) => {
            tracing::debug!(error = chain(&error), "the exchange ended early");
            exchange.answer().or_else(|| answered_by_hyper(&error))
        }
    };

    let parts = connection.into_parts();
    let gate = parts.io.into_inner().into_inner();
    let (head_bytes, body_bytes) = (gate.head_bytes(), gate.body_bytes());
    let stream = gate.into_inner().into_inner().into_inner();
    let policy = match answer.map(|answer| answer.kind) {
        // Closed by the client's wish, or the next request is here already: it came along with this one.
        Some(Kind::Response) if keep_alive && (!last.is_given() || !parts.read_buf.is_empty()) => {
            Policy::Immediate
        }
        Some(Kind::Response) => close_policy,
        Some(Kind::Refusal | Kind::Health) => REFUSAL,
        None => Policy::Immediate,
    };
    let so_far = SoFar {
        answer,
        head_bytes,
        body_bytes,
        request_whole: reads == Reads::Everything
            || exchange.body_bytes().is_some_and(|all| body_bytes >= all),
        response_whole,
        was_reset: seen.reset().is_some(),
    };
    Answered {
        stream,
        so_far,
        policy,
        tape,
    }
}

/// hyper refuses a head it can't read without asking the app.
fn answered_by_hyper(error: &hyper::Error) -> Option<Answer> {
    let status = if error.is_parse_too_large() {
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
    } else if error.is_parse() && !error.is_parse_version_h2() {
        StatusCode::BAD_REQUEST
    } else {
        return None;
    };
    Some(Answer {
        status,
        kind: Kind::Refusal,
    })
}

/// Ends when the server stops and the client has not sent anything.
async fn idle_after(stop: CancellationToken, seen: Seen) {
    stop.cancelled().await;
    sleep(IDLE_GRACE).await;
    if seen.read_bytes() > 0 {
        std::future::pending::<()>().await;
    }
}
