//! Follows requests through the bytes that the kernel took, so that a failure can say how far its request was.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rstlab_wire::{RequestEnd, SharedSeen, Wrapper, passes_through};
use tokio::io::{AsyncRead, AsyncWrite};

/// Notes in a [`SharedSeen`] where each request ends, from the bytes that the kernel took and the sensor inside noted.
///
/// Requests follow each other without pipelining: the first write after a whole one begins the next.
#[derive(Debug)]
pub(super) struct Meter<T> {
    io: T,
    seen: SharedSeen,
    body_bytes: u64,
    request_end: RequestEnd,
}

impl<T> Meter<T> {
    /// Follows requests with a body of `body_bytes` each.
    pub(super) fn new(io: T, seen: SharedSeen, body_bytes: u64) -> Self {
        let mut meter = Self {
            io,
            seen,
            body_bytes,
            request_end: RequestEnd::default(),
        };
        meter.next_request();
        meter
    }

    fn next_request(&mut self) {
        self.request_end = RequestEnd::default();
        let end = self.request_end.clone();
        self.seen.look(|seen| seen.next_request(end));
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Wrapper for Meter<T> {
    type Inner = T;

    fn inner(&mut self) -> &mut T {
        &mut self.io
    }

    fn on_write(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if self.request_end.is_reached() {
            self.next_request();
        }
        let written = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, bufs))?;
        let of_body = self.seen.look(|seen| {
            let of_body = seen.written_bytes() - seen.head_bytes();
            seen.is_head_written().then_some(of_body)
        });
        if of_body.is_some_and(|bytes| bytes >= self.body_bytes) {
            self.request_end.reach();
        }
        Poll::Ready(Ok(written))
    }
}

passes_through!([T] Meter<T>);

#[cfg(test)]
mod tests {
    use super::*;
    use rstlab_wire::{Phase, Seen, Sensor};
    use tokio::io::{AsyncWriteExt, duplex};

    #[tokio::test]
    async fn the_phase_follows_the_bytes_of_each_request() {
        let seen = SharedSeen::default();
        let (near, _far) = duplex(4096);
        let mut meter = Meter::new(Sensor::new(near, seen.clone()), seen.clone(), 4);
        for _ in 0..2 {
            meter.write_all(b"POST / HTTP/1.1\r\n").await.unwrap();
            assert!(!seen.look(|seen| seen.is_request_whole()));
            assert_eq!(seen.look(|seen| seen.phase()), Phase::SendingHead);
            meter.write_all(b"\r\nbo").await.unwrap();
            assert_eq!(seen.look(|seen| seen.phase()), Phase::SendingBody);
            meter.write_all(b"dy").await.unwrap();
            assert_eq!(seen.look(|seen| seen.phase()), Phase::Waiting);

            seen.look(Seen::response_whole);
            assert_eq!(seen.look(|seen| seen.phase()), Phase::AfterResponse);
        }
    }
}
