//! Sends a request's head and body in two writes.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{HeadEnd, Pause, Wrapper, passes_through};

/// Limit of the pieces that one call passes on; the kernel takes up to `UIO_MAXIOV` (1,024), hyper gives up to 64.
const MAX_SLICES: usize = 64;

/// Sends a request's head and body in two writes, as nginx does when they reach it apart.
///
/// The first write ends with the head's blank line, the second starts with the first body byte, however
/// the writer above hands the bytes over. There may be a pause between the two writes. During the pause nothing is
/// read, and a waiting body goes out before the next read: so does a single-threaded proxy that is busy
/// elsewhere between its two writes.
#[derive(Debug)]
pub struct SplitWrites<T> {
    io: T,
    split: bool,
    gap: Duration,
    at: WritePart,
    pause: Option<Pause>,
    /// A write was held back by the pause, and comes before the next read.
    body_waits: bool,
}

#[derive(Debug)]
enum WritePart {
    Head(HeadEnd),
    Body,
}

impl<T> SplitWrites<T> {
    /// Splits the first request written to `io`; pauses for `gap` after its head.
    ///
    /// Give a gap of zero for a request without a body: there is no second write to wait for.
    pub fn new(io: T, gap: Duration) -> Self {
        Self {
            io,
            split: true,
            gap,
            at: WritePart::Head(HeadEnd::default()),
            pause: None,
            body_waits: false,
        }
    }

    /// Passes writes on as they come: one write may carry the head and some of the body.
    pub fn off(io: T) -> Self {
        Self {
            split: false,
            ..Self::new(io, Duration::ZERO)
        }
    }

    /// The wrapped connection.
    pub fn into_inner(self) -> T {
        self.io
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Wrapper for SplitWrites<T> {
    type Inner = T;

    fn inner(&mut self) -> &mut T {
        &mut self.io
    }

    fn on_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(poll_pause(&mut self.pause, cx));
        if self.body_waits {
            // The write wakes this task.
            return Poll::Pending;
        }
        Pin::new(&mut self.io).poll_read(cx, buf)
    }

    fn on_write(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if poll_pause(&mut self.pause, cx).is_pending() {
            self.body_waits = true;
            return Poll::Pending;
        }
        let io = Pin::new(&mut self.io);
        let WritePart::Head(head_end) = &mut self.at else {
            let result = ready!(io.poll_write_vectored(cx, bufs));
            if std::mem::take(&mut self.body_waits) {
                cx.waker().wake_by_ref();
            }
            return Poll::Ready(result);
        };

        let written = ready!(if self.split {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let used = up_to_head_end(*head_end, bufs, &mut slices);
            io.poll_write_vectored(cx, &slices[..used])
        } else {
            io.poll_write_vectored(cx, bufs)
        })?;
        if has_head_end(head_end, bufs, written) {
            self.at = WritePart::Body;
            if !self.gap.is_zero() {
                self.pause = Some(Pause::start(self.gap)?);
            }
        }
        Poll::Ready(Ok(written))
    }
}

passes_through!([T] SplitWrites<T>);

fn poll_pause(pause: &mut Option<Pause>, cx: &mut Context<'_>) -> Poll<()> {
    if let Some(running) = pause {
        ready!(Pin::new(running).poll(cx));
        *pause = None;
    }
    Poll::Ready(())
}

/// Fills `out` with the part of `bufs` that belongs to the head; returns how many slices that took.
fn up_to_head_end<'a>(
    mut head_end: HeadEnd,
    bufs: &'a [IoSlice<'_>],
    out: &mut [IoSlice<'a>; MAX_SLICES],
) -> usize {
    let mut used = 0;
    for (slot, buf) in out.iter_mut().zip(bufs) {
        let end = head_end.feed(buf);
        *slot = IoSlice::new(&buf[..end.unwrap_or(buf.len())]);
        used += 1;
        if end.is_some() {
            break;
        }
    }
    used
}

/// Whether the head's end is among the `written` bytes that the kernel took.
fn has_head_end(head_end: &mut HeadEnd, bufs: &[IoSlice<'_>], mut written: usize) -> bool {
    bufs.iter().any(|buf| {
        let part = &buf[..written.min(buf.len())];
        written -= part.len();
        head_end.feed(part).is_some()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Seen, Sensor};
    use proptest::prelude::*;
    use std::time::Instant;
    use tokio::io::AsyncWriteExt;

    /// Keeps a copy of each write, and takes at most `most` bytes of it.
    struct Writes {
        io: tokio::io::Empty,
        calls: Vec<(Vec<u8>, Instant)>,
        most: usize,
    }

    impl Writes {
        fn of(most: usize) -> Self {
            Self {
                io: tokio::io::empty(),
                calls: Vec::new(),
                most,
            }
        }
    }

    impl Wrapper for Writes {
        type Inner = tokio::io::Empty;

        fn inner(&mut self) -> &mut tokio::io::Empty {
            &mut self.io
        }

        fn on_write(
            &mut self,
            _: &mut Context<'_>,
            bufs: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let mut bytes: Vec<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).collect();
            bytes.truncate(self.most);
            let taken = bytes.len();
            self.calls.push((bytes, Instant::now()));
            Poll::Ready(Ok(taken))
        }
    }

    passes_through!([] Writes);

    fn observed(most: usize) -> Sensor<Writes> {
        Sensor::new(Writes::of(most), Seen::default())
    }

    const HEAD: &[u8] = b"POST / HTTP/1.1\r\nHost: x\r\n\r\n";

    async fn write_all(split: &mut (impl AsyncWrite + Unpin), pieces: &[&[u8]]) {
        let bytes: Vec<u8> = pieces.concat();
        let mut sent = 0;
        while sent < bytes.len() {
            let rest: Vec<IoSlice<'_>> = bytes[sent..].chunks(7).map(IoSlice::new).collect();
            sent += split.write_vectored(&rest).await.unwrap();
        }
    }

    #[tokio::test]
    async fn the_first_write_is_the_head_and_the_second_comes_a_gap_later() {
        let gap = Duration::from_millis(3);
        let mut split = SplitWrites::new(Writes::of(usize::MAX), gap);
        write_all(&mut split, &[HEAD, b"body"]).await;
        let calls = split.into_inner().calls;
        assert_eq!(calls.len(), 2);
        assert_eq!(calls[0].0, HEAD);
        assert_eq!(calls[1].0, b"body");
        assert!(calls[1].1 - calls[0].1 >= gap);
    }

    #[tokio::test]
    async fn an_answer_that_came_during_the_gap_is_read_after_the_body_is_out() {
        let (near, mut far) = tokio::io::duplex(1024);
        let mut split = SplitWrites::new(near, Duration::from_millis(1));
        split.write_all(HEAD).await.unwrap();
        far.write_all(b"answer").await.unwrap();
        let mut order = Vec::new();
        // As hyper does it: reads first whenever it is woken, then writes what it holds.
        std::future::poll_fn(|cx| {
            let mut answer = [0; 6];
            let mut answer = ReadBuf::new(&mut answer);
            if Pin::new(&mut split).poll_read(cx, &mut answer).is_ready() {
                order.push("read");
                return Poll::Ready(());
            }
            if order.is_empty() && Pin::new(&mut split).poll_write(cx, b"body").is_ready() {
                order.push("written");
            }
            Poll::Pending
        })
        .await;
        assert_eq!(order, ["written", "read"]);
    }

    #[tokio::test]
    async fn without_the_split_one_write_carries_both() {
        let mut joined = SplitWrites::off(observed(usize::MAX));
        write_all(&mut joined, &[HEAD, b"body"]).await;
        let (io, seen) = joined.into_inner().into_parts();
        assert_eq!(io.calls.len(), 1);
        assert_eq!(seen.head_bytes(), HEAD.len() as u64);
        assert_eq!(seen.phase(), crate::Phase::SendingBody);
    }

    proptest! {
        #[test]
        fn no_write_crosses_the_border(body in proptest::collection::vec(any::<u8>(), 0..40), most in 1usize..50) {
            let mut split = SplitWrites::new(observed(most), Duration::ZERO);
            block_on(write_all(&mut split, &[HEAD, &body]));
            let (io, seen) = split.into_inner().into_parts();
            let mut sent = Vec::new();
            for (call, _) in io.calls {
                let border = sent.len() < HEAD.len() && sent.len() + call.len() > HEAD.len();
                prop_assert!(!border, "one write carried head and body");
                sent.extend(call);
            }
            prop_assert_eq!(sent, [HEAD, &body].concat());
            prop_assert_eq!(seen.head_bytes(), HEAD.len() as u64);
        }
    }

    fn block_on(future: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(future);
    }
}
