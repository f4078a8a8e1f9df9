use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::BodyExt as _;
use hyper::client::conn::http1::{self, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use rstlab_upstream::Fill;
use rstlab_wire::{Failure, OnWriteError, ReadOn, Seen, Sensor, SplitWrites};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::meter::Meter;
use super::{Plan, Writes};

/// How long a connection that the server said it would close is watched for a late reset.
const WATCH: Duration = Duration::from_secs(1);

/// How long HTTP may take to say whether a connection can be used again; it takes no I/O.
const SETTLE: Duration = Duration::from_secs(1);

const USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("rstlab/", env!("CARGO_PKG_VERSION")));

/// One connection to the server.
pub(crate) struct Link {
    sender: SendRequest<Fill>,
    driver: Driver,
    seen: Seen,
    /// It has carried a whole exchange before.
    reused: bool,
}

/// What is known of an exchange so far; it outlives one that is given up.
#[derive(Debug, Default)]
pub(crate) struct SoFar {
    pub(super) seen: Option<Seen>,
    pub(super) reused: bool,
    pub(crate) status: Option<StatusCode>,
    pub(crate) expected_bytes: Option<u64>,
    pub(crate) body_bytes: u64,
}

impl Link {
    /// Connects.
    pub(crate) async fn open(plan: &Plan) -> io::Result<Self> {
        let stream = TcpStream::connect(plan.target.address).await?;
        // The second of two writes must not wait for the first one's ACK.
        stream.set_nodelay(true)?;
        let seen = Seen::default();
        let body_bytes = plan.body_bytes.unwrap_or(0);
        let io = Sensor::new(stream, seen.clone());
        let io = Meter::new(io, seen.clone(), body_bytes);
        let io = ReadOn::new(io, OnWriteError::ReadOn);
        let io: Io = match plan.writes {
            Writes::Split { gap } if body_bytes > 0 => {
                Box::new(SplitWrites::new(io, seen.clone(), gap))
            }
            Writes::Split { .. } | Writes::Joined => Box::new(io),
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

    /// Whether the next request may go over it: the server has not closed it meanwhile.
    pub(super) async fn is_open(&mut self) -> bool {
        self.driver.look().await;
        self.sender.is_ready()
    }

    /// What was seen on it.
    pub(super) fn seen(&self) -> &Seen {
        &self.seen
    }

    /// Starts the account of an exchange over it.
    pub(crate) fn so_far(&self) -> SoFar {
        SoFar {
            seen: Some(self.seen.clone()),
            reused: self.reused,
            ..SoFar::default()
        }
    }

    /// Sends one request and reads the response to its end.
    ///
    /// # Errors
    /// The response did not come, or not wholly.
    pub(crate) async fn exchange(&mut self, plan: &Plan, so_far: &mut SoFar) -> hyper::Result<()> {
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
        self.seen.response_whole();
        self.reused = true;
        Ok(())
    }

    /// Whether another request can follow on it.
    pub(super) async fn settle(&mut self) -> bool {
        // After an early answer the rest of the body is not worth sending (RFC 9112 §9.5).
        if !self.seen.is_request_whole() {
            return false;
        }
        let ready = self.driver.drive(self.sender.ready());
        matches!(timeout(SETTLE, ready).await, Ok(Ok(())))
    }

    /// Watches a connection after its last response, until FIN, RST or one second.
    ///
    /// Returns the reset that did no harm.
    pub(super) async fn watch(self) -> Option<Failure> {
        let mut io = self.driver.into_io()?;
        let mut buf = [0; 1024];
        let end = async { while matches!(io.read(&mut buf).await, Ok(bytes) if bytes > 0) {} };
        // No end within the time is an answer too: no reset.
        let _ = timeout(WATCH, end).await;
        self.seen.reset()
    }
}

fn request(plan: &Plan) -> Request<Fill> {
    let mut request = Request::new(Fill::new(plan.body_bytes.unwrap_or(0)));
    if plan.body_bytes.is_some() {
        *request.method_mut() = Method::POST;
    }
    *request.uri_mut() = Uri::from(plan.target.path.clone());
    let headers = request.headers_mut();
    headers.insert(header::HOST, plan.target.host.clone());
    headers.insert(header::USER_AGENT, USER_AGENT);
    if matches!(plan.writes, Writes::Split { .. }) {
        // The split is made once on each connection.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    request
}

/// The wrapped stream, whichever wrappers.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

type Io = Box<dyn Stream>;

/// Moves hyper's connection on, in the task that waits for what comes out of it.
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

    /// Waits for `future` and drives the connection meanwhile.
    async fn drive<F: Future>(&mut self, future: F) -> F::Output {
        let mut future = pin!(future);
        poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(output);
            }
            if self.poll_ended(cx) {
                // hyper's side is gone, and whoever waits for it was told so.
                return future.as_mut().poll(cx);
            }
            Poll::Pending
        })
        .await
    }

    /// Lets the connection notice what has come while nobody waited for it.
    async fn look(&mut self) {
        poll_fn(|cx| {
            self.poll_ended(cx);
            Poll::Ready(())
        })
        .await;
    }

    /// True if the connection ended just now. Its error is the exchange's, or the Sensor noted it.
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

    /// The stream, whether or not HTTP is done with it.
    fn into_io(self) -> Option<Io> {
        self.running.map(into_io).or(self.ended)
    }
}

fn into_io(connection: Connection<TokioIo<Io>, Fill>) -> Io {
    connection.into_parts().io.into_inner()
}
