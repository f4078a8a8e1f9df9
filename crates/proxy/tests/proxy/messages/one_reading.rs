//! hyper behind the guard reads the requests that the follower of messages reads.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use rstlab_wire::{Direction, Framing, MAX_HEAD_BYTES, MessagePart, Messages};
use tokio::io::{AsyncRead, ReadBuf};

const PARTS: &[&str] = &[
    "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET / HTTP/1.1\r\nConnection: x, close\r\n\r\n",
    "PUT / HTTP/1.1\r\nContent-Length: 5\r\n\r\n12345",
    "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
    "POST / HTTP/1.1\r\n",
    "POST / HTTP/1.0\r\nConnection: keep-alive\r\n",
    "Content-Length: 5\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: gzip, chunked\r\n",
    "A: b\r\n",
    "\r\n",
    "5\r\n12345\r\n",
    "5;a=b;c=\"d\"\r\n12345\r\n",
    "0\r\n\r\n",
    "0\r\nA: b\r\n\r\n",
];

/// Gives a piece with each read, through the guard.
struct GuardedPieces {
    pieces: std::vec::IntoIter<Vec<u8>>,
    framing: Framing,
}

impl AsyncRead for GuardedPieces {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let from = buf.filled().len();
        if let Some(piece) = self.pieces.next() {
            buf.put_slice(&piece);
            self.framing.check(buf, from);
        }
        Poll::Ready(Ok(()))
    }
}

/// The bodies of the requests that hyper reads to their ends.
fn read_by_hyper(pieces: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let bodies: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
    let pieces = GuardedPieces {
        pieces: pieces.into_iter(),
        framing: Framing::requests(),
    };
    let service = service_fn(|request: Request<Incoming>| {
        let bodies = Arc::clone(&bodies);
        async move {
            if let Ok(body) = request.into_body().collect().await {
                let mut bodies = bodies.lock().unwrap_or_else(PoisonError::into_inner);
                bodies.push(body.to_bytes().to_vec());
            }
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    });
    let io = TokioIo::new(tokio::io::join(pieces, tokio::io::sink()));
    let mut server = http1::Builder::new();
    let server = server.half_close(true).max_header_size(MAX_HEAD_BYTES);
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    // Fails with a request that is refused.
    let _ = runtime
        .unwrap()
        .block_on(server.serve_connection(io, service));
    std::mem::take(&mut *bodies.lock().unwrap_or_else(PoisonError::into_inner))
}

/// The bodies of the requests that the follower reads to their ends.
fn followed(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut messages = Messages::new(Direction::Requests);
    let (mut bodies, mut body) = (Vec::new(), Vec::new());
    while !bytes.is_empty()
        && let Ok(step) = messages.step(bytes)
    {
        if step.part == MessagePart::Body {
            body.extend_from_slice(&bytes[..step.bytes]);
        }
        if step.ends {
            bodies.push(std::mem::take(&mut body));
        }
        bytes = &bytes[step.bytes..];
    }
    bodies
}

proptest! {
    #[test]
    fn hyper_reads_the_requests_that_the_follower_reads(
        parts in proptest::collection::vec(proptest::sample::select(PARTS), 1..12),
        changes in proptest::collection::vec(
            (any::<proptest::sample::Index>(), proptest::sample::select(&b"\r\n\0 \t;:,\"05x\xff"[..])),
            0..3,
        ),
        size in 1usize..60,
    ) {
        let mut bytes = parts.concat().into_bytes();
        for (at, byte) in changes {
            bytes.insert(at.index(bytes.len()), byte);
        }
        let hyper = read_by_hyper(bytes.chunks(size).map(<[u8]>::to_vec).collect());
        let followed = followed(&bytes);
        prop_assert!(followed.starts_with(&hyper), "{followed:?}\n{hyper:?}\n{}", bytes.escape_ascii());
    }
}
