//! The upstream of a bench: reads each request's body, answers, and closes the connection or keeps it.
//!
//! rstlab-upstream carries one request on each connection, so it can't be the upstream whose connections are kept. With
//! one server for both, closing is the only difference.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rstlab_upstream::Fill;
use rstlab_wire::{Slots, accept};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::cases::BenchCase;

/// A running upstream; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct BenchUpstream {
    pub(super) address: SocketAddr,
    _stop: DropGuard,
}

impl BenchUpstream {
    /// Starts an upstream that answers as the case says.
    ///
    /// # Errors
    /// There is no free port.
    pub(super) async fn start(case: &BenchCase) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (kept, bytes) = (case.kept, case.response);
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let handle = move |stream, _, _| {
            let stopped = stopped.clone();
            // How a connection of the proxy ends is not the upstream's matter.
            async move {
                let _ = stopped
                    .run_until_cancelled(serve(stream, kept, bytes))
                    .await;
            }
        };
        let slots = Slots::new(accept::capacity(1, 0), 0);
        let serving = accept::serve(
            listener,
            slots,
            stop.clone().into(),
            TaskTracker::new(),
            handle,
        );
        tokio::spawn(serving);
        Ok(Self {
            address,
            _stop: stop.drop_guard(),
        })
    }
}

async fn serve(stream: TcpStream, kept: bool, bytes: u64) -> hyper::Result<()> {
    // Fails only on a connection that is gone.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request: Request<Incoming>| async move {
        let mut body = request.into_body();
        // If the proxy gives the request up, there is nobody to answer.
        while let Some(Ok(_)) = body.frame().await {}
        Ok::<_, Infallible>(Response::new(Fill::new(bytes)))
    });
    http1::Builder::new()
        .keep_alive(kept)
        .serve_connection(TokioIo::new(stream), service)
        .await
}
