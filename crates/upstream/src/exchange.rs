//! One connection in this process: one request, one response, and the close that the mode asks for.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rstlab_wire::close::{self, Bounds, Closed, Peer, Policy};
use rstlab_wire::{
    Failure, HeadGate, MAX_HEAD_BYTES, Reads, RequestEnd, Seen, Sensor, Stall, StopOrder, Tape,
    chain,
};
use rstlab_witness::AnswerKind;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use crate::app::{self, Answer};
use crate::config::UpstreamConfig;
use crate::last::{LastByte, UntilLast};

/// Limit of the time until a request's head has come.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

/// Limit of the time between two successful writes.
const SEND_STALL: Duration = Duration::from_secs(60);

/// Limit of the buffer for reading a connection; the buffer for writing is about as large.
const MAX_BUFFER_BYTES: usize = 128 * 1024;

/// Time that a connection without a byte lives on after the order to stop: its client's request may be on the way.
const IDLE_GRACE: Duration = Duration::from_secs(1);

/// A refused client may still be sending; it gets the answer if the server reads on (RFC 9112 §9.6).
const REFUSAL: Policy = Policy::Linger(Bounds {
    time: Duration::from_secs(5),
    bytes: None,
});

/// How a connection went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionEnd {
    /// What was answered; `None` if no request came.
    pub answer: Option<Answer>,
    /// Bytes of the head that were read.
    pub head_bytes: u64,
    /// Bytes after the head that were read before the response, as they stood on the wire.
    pub body_bytes: u64,
    /// The whole request was read, as the client had announced it.
    pub request_whole: bool,
    /// The whole response was sent, as it was announced.
    pub response_whole: bool,
    /// The server ended before the response was out.
    pub abandoned: bool,
    /// The queues and the peer at the close.
    pub closed: Closed,
}

/// Serves one connection in this process: one request, one response, and then the close that the mode asks for.
/// For a mode with a child process, this does the child's work, but kills nothing.
///
/// Returns how the connection went, the first call that failed, and all calls if `tape` records.
pub async fn connection(
    stream: TcpStream,
    config: Arc<UpstreamConfig>,
    stop: StopOrder,
    tape: Tape,
) -> (ConnectionEnd, Option<Failure>, Tape) {
    let answered = exchange(stream, config, stop.clone(), tape).await;
    answered.close(stop).await
}

/// A connection whose response is out, and which is still open.
pub(crate) struct Answered {
    pub(crate) stream: TcpStream,
    /// How the connection went, except for the close.
    end: ConnectionEnd,
    policy: Policy,
    /// The calls on the connection, and the first one that failed.
    seen: Seen,
}

impl Answered {
    /// What was answered; `None` if no request came.
    pub(crate) fn answer(&self) -> Option<Answer> {
        self.end.answer
    }

    /// How the connection went until now, if the kernel is to close it.
    pub(crate) fn look(&mut self) -> ConnectionEnd {
        let closed = close::look(&self.stream, &mut self.seen.tape);
        self.end.closed(closed, &self.seen)
    }

    /// Closes the connection; a wait for the next request on it ends at `stop`.
    pub(crate) async fn close(mut self, stop: StopOrder) -> (ConnectionEnd, Option<Failure>, Tape) {
        let tape = &mut self.seen.tape;
        if let Policy::OnArrival(limit) = self.policy {
            tokio::select! {
                () = close::arrival(&self.stream, limit, tape) => {}
                () = stop.finish.cancelled() => {}
            }
            self.policy = Policy::Immediate;
        }
        let closed = close::close(self.stream, self.policy, tape, &stop.abandon).await;
        let end = self.end.closed(closed, &self.seen);
        (end, self.seen.failure(), self.seen.tape)
    }
}

impl ConnectionEnd {
    /// No request came, and nothing was answered.
    pub(crate) const UNANSWERED: Self = Self {
        answer: None,
        head_bytes: 0,
        body_bytes: 0,
        request_whole: false,
        response_whole: false,
        abandoned: false,
        closed: Closed {
            unread_bytes: 0,
            unsent_bytes: 0,
            lingered_bytes: 0,
            peer: Peer::Open,
        },
    };

    /// Adds the close. The socket reports the client's RST only once, and may have done so to an earlier call.
    fn closed(mut self, closed: Closed, seen: &Seen) -> Self {
        self.closed = closed;
        if seen.reset().is_some() {
            self.closed.peer = Peer::Reset;
        }
        self
    }
}

/// One request and one response.
///
/// hyper reads through a gate that stops after the head in the modes that ignore the body, and never
/// shuts the connection down: the close policy does, on the socket itself.
pub(crate) async fn exchange(
    stream: TcpStream,
    config: Arc<UpstreamConfig>,
    stop: StopOrder,
    tape: Tape,
) -> Answered {
    let seen = Seen::new(tape, RequestEnd::default());
    let mut end = ConnectionEnd::UNANSWERED;
    let accepted = Instant::now();
    if !comes(&stream, stop.clone()).await {
        let policy = Policy::Immediate;
        return Answered {
            stream,
            end,
            policy,
            seen,
        };
    }

    let (close_policy, reads) = (config.close_policy(), config.body_policy().reads());
    let keep_alive = config.mode.keeps_alive();
    let last = LastByte::default();
    // A connection carries one request.
    let (told, mut answers) = mpsc::channel(1);
    let io = Sensor::new(stream, seen);
    let io = HeadGate::new(Stall::sending(io, Some(SEND_STALL)), reads);
    let io = UntilLast::new(io, last.clone());
    let app = app::service(config, told, last.clone());
    let mut connection = http1::Builder::new()
        .keep_alive(keep_alive)
        // A client that has shut down its side still wants its answer.
        .half_close(true)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT.saturating_sub(accepted.elapsed()))
        .max_header_size(MAX_HEAD_BYTES)
        .max_buf_size(MAX_BUFFER_BYTES)
        .serve_connection(TokioIo::new(io), TowerToHyperService::new(app));

    let serving = async {
        (&mut connection).await?;
        // If a client offers an upgrade (`Upgrade: h2c`), hyper is done before it has written out its buffer
        // (`Dispatcher::poll_inner`; hyper's pull request 4018 has cured that for other requests).
        // Polled again, hyper has forgotten the upgrade and writes the rest.
        (&mut connection).await
    };
    let served = stop.abandon.run_until_cancelled(serving).await;
    // hyper is through with a whole response by itself, and is stopped behind one that is kept or cut.
    end.response_whole = matches!(served, Some(Ok(()))) || (last.is_given() && keep_alive);
    let told = answers.try_recv().ok();
    end.answer = told.map(|(answer, _)| answer);
    if let Some(Err(error)) = &served
        && !last.is_given()
    {
        tracing::debug!(error = chain(error), "the exchange ended early");
        end.answer = end.answer.or_else(|| answered_by_hyper(error));
    }

    let parts = connection.into_parts();
    let gate = parts.io.into_inner().into_inner();
    (end.head_bytes, end.body_bytes) = (gate.head_bytes(), gate.body_bytes());
    end.abandoned = served.is_none() && !end.response_whole && gate.is_head_complete();
    let announced = told.and_then(|(_, announced)| announced);
    end.request_whole =
        reads == Reads::Everything || announced.is_some_and(|all| end.body_bytes >= all);
    let (stream, seen) = gate.into_inner().into_inner().into_parts();
    let policy = match end.answer.map(|answer| answer.kind) {
        // Closed by the client's wish, or the next request is here already: it came along with this one.
        Some(AnswerKind::Response)
            if keep_alive && (!last.is_given() || !parts.read_buf.is_empty()) =>
        {
            Policy::Immediate
        }
        Some(AnswerKind::Response) => close_policy,
        Some(AnswerKind::Refusal | AnswerKind::Health) => REFUSAL,
        None => Policy::Immediate,
    };
    Answered {
        stream,
        end,
        policy,
        seen,
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
        status: status.as_u16(),
        kind: AnswerKind::Refusal,
    })
}

/// Waits for the client's first byte, or its end; false if the server stops or the time for a head is over before that.
async fn comes(stream: &TcpStream, stop: StopOrder) -> bool {
    let stopped = async {
        stop.finish.cancelled().await;
        sleep(IDLE_GRACE).await;
    };
    tokio::select! {
        biased;
        // An error shows again in the next read.
        _ = stream.async_io(Interest::READABLE, || polled(stream)) => true,
        () = stopped => false,
        () = sleep(HEAD_TIMEOUT) => false,
    }
}

/// Asks the kernel whether a read would return at once: tokio takes a fresh socket for readable until a call on it has
/// failed with `EAGAIN`. `poll(2)` leaves bytes, FIN and error in the socket.
fn polled(stream: &TcpStream) -> io::Result<()> {
    let mut socket = [PollFd::new(stream, PollFlags::IN)];
    match poll(&mut socket, Some(&Timespec::default()))? {
        0 => Err(io::ErrorKind::WouldBlock.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use std::pin::pin;
    use tokio::net::TcpListener;

    #[tokio::test(start_paused = true)]
    async fn a_client_that_says_nothing_does_not_hold_the_stop() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let stop = StopOrder::default();
        let config = Arc::new(UpstreamConfig::default());
        let mut served = pin!(connection(stream, config, stop.clone(), Tape::default()));
        assert!(served.as_mut().now_or_never().is_none(), "it waits");
        stop.finish.cancel();
        let stopped = Instant::now();
        let (end, ..) = served.await;
        assert!(stopped.elapsed() < 2 * IDLE_GRACE);
        assert_eq!((end.answer, end.abandoned), (None, false));
    }
}
