//! A response's body as it comes from the upstream: copied through the proxy, or spliced past it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use rstlab_wire::{Pipe, Slots};
use tokio::sync::oneshot;

use crate::client_io::ClientSignals;
use crate::spliced::{Borrow, Spliced};

/// Length from which a body is spliced.
///
/// Up to 96 KiB come with the head and are copied. CPU time of the proxy for a response, spliced against copied, medians of
/// several rounds in turn: 1.16 times with 128 KiB, 0.88 times with 256 KiB.
const MIN_SPLICED_BYTES: u64 = 256 * 1024;

/// A response's body as it comes from the upstream.
#[derive(Debug)]
pub(crate) enum ResponseBody {
    /// hyper reads it.
    Copied(Incoming),
    /// It goes from socket to socket in the kernel.
    Spliced(Box<Spliced>),
}

/// Why a response's body ends too early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResponseBodyError {
    /// hyper met it.
    #[error("{0}")]
    Copied(#[source] hyper::Error),
    /// `splice(2)` failed, a time limit passed, or the stream ended.
    #[error("{0}")]
    Spliced(#[source] io::Error),
}

impl ResponseBody {
    /// Splices a large body of known length, if there are descriptors for a pipe. The whole request must be out.
    pub(crate) async fn spliced_if_large(
        mut body: Incoming,
        borrow: oneshot::Sender<Borrow>,
        slots: &Slots,
        signals: &Arc<ClientSignals>,
    ) -> Self {
        let length = body.size_hint().exact();
        let Some(length) = length.filter(|bytes| *bytes >= MIN_SPLICED_BYTES) else {
            return Self::Copied(body);
        };
        if !signals.requests_out.is_flushed() {
            return Self::Copied(body);
        }
        let Some(pipe) = slots.pipe().and_then(|slot| Pipe::new(slot).ok()) else {
            return Self::Copied(body);
        };
        let (lend, lent) = oneshot::channel();
        // Fails, here or below, if the connection has ended.
        let _ = borrow.send(lend);
        let Ok(lent) = lent.await else {
            return Self::Copied(body);
        };
        // The beginning came with the head. Behind it hyper tells of the connection that it has lost.
        let first = body.frame().now_or_never().flatten();
        let first = first
            .and_then(Result::ok)
            .and_then(|frame| frame.into_data().ok());
        let first = first.unwrap_or_default();
        let spliced = Spliced::new(first, length, lent, pipe, Arc::clone(signals));
        Self::Spliced(Box::new(spliced))
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = ResponseBodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseBodyError>>> {
        match self.get_mut() {
            Self::Copied(body) => Pin::new(body)
                .poll_frame(cx)
                .map_err(ResponseBodyError::Copied),
            Self::Spliced(body) => body
                .poll_piece(cx)
                .map_ok(Frame::data)
                .map_err(ResponseBodyError::Spliced),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Copied(body) => body.is_end_stream(),
            Self::Spliced(body) => body.left_bytes() == 0,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Copied(body) => body.size_hint(),
            Self::Spliced(body) => SizeHint::with_exact(body.left_bytes()),
        }
    }
}
