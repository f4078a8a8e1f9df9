//! A server of hyper alone, for the matrix of real servers: it answers every request, and ignores bodies, or reads them
//! with `--read`.

use std::convert::Infallible;
use std::env;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

const RESPONSE: Bytes = Bytes::from_static(&[b'x'; 614_400]);

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let port = env::args().nth(1).and_then(|port| port.parse().ok());
    let Some(port) = port else {
        eprintln!("usage: plain-hyper PORT [--read]");
        std::process::exit(2);
    };
    let read = env::args().nth(2).is_some_and(|word| word == "--read");
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        let service = service_fn(move |request| answer(request, read));
        // Errors of a connection are for the other side to report.
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn answer(
    request: Request<Incoming>,
    read: bool,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if read {
        // If the body is cut, the connection ends, and so does the answer.
        let _ = request.into_body().collect().await;
    }
    Ok(Response::new(Full::new(RESPONSE)))
}
