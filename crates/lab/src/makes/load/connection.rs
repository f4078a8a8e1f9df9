//! A connection of a load: hyper's client over a socket that is observed.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Method, Request, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::client::conn::http1::{self, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use rstlab_upstream::Fill;
use rstlab_wire::{Failure, OnWriteError, ReadOn, Seen, Sensor, SharedSeen, SplitWrites};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::meter::Meter;
use super::{LoadPlan, RequestWrites};

/// How long a connection that the server said it would close is watched for a late reset.
const WATCH: Duration = Duration::from_secs(1);

/// How long hyper may take to say whether a connection can be used again. No I/O is needed for the answer.
const SETTLE: Duration = Duration::from_secs(1);

const USER_AGENT: &str = concat!("rstlab/", env!("CARGO_PKG_VERSION"));

/// One connection to the server, with hyper's client on it.
pub(crate) struct LoadConnection {
    sender: SendRequest<Fill>,
    driver: Driver,
    seen: SharedSeen,
    /// The connection has carried a whole exchange before.
    reused: bool,
}

/// What is known of an exchange so far. The account outlives an exchange that is given up.
#[derive(Debug, Default)]
pub(crate) struct ExchangeSoFar {
    pub(super) seen: Option<SharedSeen>,
    pub(super) reused: bool,
    pub(crate) status: Option<StatusCode>,
    pub(crate) expected_bytes: Option<u64>,
    pub(crate) body_bytes: u64,
}

impl LoadConnection {
    /// Connects.
    pub(crate) async fn open(plan: &LoadPlan) -> io::Result<Self> {
        let stream = TcpStream::connect(plan.target.address).await?;
        // The second of two writes must not wait for the first one's ACK.
        stream.set_nodelay(true)?;
        let seen = SharedSeen::default();
        let body_bytes = plan.body_bytes.unwrap_or(0);
        let io = Sensor::new(stream, seen.clone());
        let io = Meter::new(io, seen.clone(), body_bytes);
        let io = ReadOn::new(io, OnWriteError::ReadOn);
        let io: Io = match plan.writes {
            RequestWrites::Split { gap } if body_bytes > 0 => Box::new(SplitWrites::new(io, gap)),
            RequestWrites::Split { .. } | RequestWrites::Joined => Box::new(io),
        };
        // hyper's handshake for HTTP/1 does no I/O and does not fail.
        let (sender, connection) = http1::handshake(TokioIo::new(io))
            .await
            .map_err(io::Error::other)?;
        Ok(Self {
            sender,
            driver: Driver::new(connection),
            seen,
            reused: false,
        })
    }

    /// Whether the next request may go over the connection: the server has not closed it meanwhile.
    pub(super) async fn is_open(&mut self) -> bool {
        self.driver.look().await;
        self.sender.is_ready()
    }

    /// What was seen on the connection.
    pub(super) fn seen(&self) -> &SharedSeen {
        &self.seen
    }

    /// Starts the account of an exchange over the connection.
    pub(crate) fn so_far(&self) -> ExchangeSoFar {
        ExchangeSoFar {
            seen: Some(self.seen.clone()),
            reused: self.reused,
            ..ExchangeSoFar::default()
        }
    }

    /// Sends one request and reads the response to its end.
    ///
    /// # Errors
    /// The response did not come, or its end is missing.
    pub(crate) async fn exchange(
        &mut self,
        plan: &LoadPlan,
        so_far: &mut ExchangeSoFar,
    ) -> hyper::Result<()> {
        let response = self.sender.send_request(request(plan));
        let response = self.driver.drive(response).await?;
        so_far.status = Some(response.status());
        let mut body = response.into_body();
        so_far.expected_bytes = http_body::Body::size_hint(&body).exact();
        while let Some(frame) = self.driver.drive(body.frame()).await {
            if let Some(data) = frame?.data_ref() {
                so_far.body_bytes += data.len() as u64;
            }
        }
        self.seen.look(Seen::response_whole);
        self.reused = true;
        Ok(())
    }

    /// Whether another request can follow on the connection.
    pub(super) async fn settle(&mut self) -> bool {
        // After an early answer the rest of the body is not worth sending (RFC 9112 §9.5).
        if !self.seen.look(|seen| seen.is_request_whole()) {
            return false;
        }
        let ready = self.driver.drive(self.sender.ready());
        matches!(timeout(SETTLE, ready).await, Ok(Ok(())))
    }

    /// Watches a connection after its last response, until FIN, RST or one second.
    ///
    /// Returns a reset, which did no harm.
    pub(super) async fn watch(self) -> Option<Failure> {
        let mut io = self.driver.into_io()?;
        let mut buf = [0; 1024];
        let end = async { while matches!(io.read(&mut buf).await, Ok(bytes) if bytes > 0) {} };
        // A connection that does not end within the time was not reset.
        let _ = timeout(WATCH, end).await;
        self.seen.look(|seen| seen.reset())
    }
}

fn request(plan: &LoadPlan) -> Request<Fill> {
    let mut request = Request::builder()
        .uri(plan.target.path.as_str())
        .header(header::HOST, plan.target.host.as_str())
        .header(header::USER_AGENT, USER_AGENT);
    if plan.body_bytes.is_some() {
        request = request.method(Method::POST);
    }
    if matches!(plan.writes, RequestWrites::Split { .. }) {
        // `SplitWrites` splits the first request of a connection only.
        request = request.header(header::CONNECTION, "close");
    }
    let request = request.body(Fill::new(plan.body_bytes.unwrap_or(0)));
    request.expect("a target's host and path are valid in HTTP")
}

/// A stream in its wrappers, with or without `SplitWrites`.
trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

type Io = Box<dyn ByteStream>;

/// Polls hyper's connection in the task that waits for the response.
struct Driver {
    running: Option<Connection<TokioIo<Io>, Fill>>,
    ended: Option<Io>,
}

impl Driver {
    fn new(connection: Connection<TokioIo<Io>, Fill>) -> Self {
        Self {
            running: Some(connection),
            ended: None,
        }
    }

    /// Waits for `future` and polls the connection meanwhile.
    async fn drive<F: Future>(&mut self, future: F) -> F::Output {
        let mut future = pin!(future);
        poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(output);
            }
            if self.poll_ended(cx) {
                // hyper has told the future that the connection ended.
                return future.as_mut().poll(cx);
            }
            Poll::Pending
        })
        .await
    }

    /// Polls the connection once, so that hyper notices an end that came while nobody waited.
    async fn look(&mut self) {
        poll_fn(|cx| {
            self.poll_ended(cx);
            Poll::Ready(())
        })
        .await;
    }

    /// True if the connection ended just now. The exchange gets its error, or the `Sensor` has noted it.
    fn poll_ended(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(running) = &mut self.running else {
            return false;
        };
        if running.poll_without_shutdown(cx).is_pending() {
            return false;
        }
        self.ended = self.running.take().map(into_io);
        true
    }

    /// The stream, whether or not hyper is done with it.
    fn into_io(self) -> Option<Io> {
        self.running.map(into_io).or(self.ended)
    }
}

fn into_io(connection: Connection<TokioIo<Io>, Fill>) -> Io {
    connection.into_parts().io.into_inner()
}
