use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{HeadEnd, Pause, Seen};

/// Most pieces that one call passes on; the kernel takes up to `UIO_MAXIOV` (1,024), hyper gives up to 64.
const MAX_SLICES: usize = 64;

/// Sends a request's head and body in two writes, as nginx does when they reach it apart.
///
/// The first write ends with the head's blank line, the second starts with the first body byte, however
/// the writer above hands the bytes over. Between the two it may pause. During the pause nothing is read
/// either, and a body that waits for its end goes out before anything is read: this is the single-threaded
/// proxy that is busy elsewhere between its two writes.
#[derive(Debug)]
pub struct SplitWrites<T> {
    io: T,
    seen: Seen,
    split: bool,
    gap: Duration,
    at: At,
    pause: Option<Pause>,
    /// A write has met the pause and comes next.
    body_waits: bool,
}

#[derive(Debug)]
enum At {
    Head(HeadEnd),
    Body,
}

impl<T> SplitWrites<T> {
    /// Splits the first request written to `io`; pauses for `gap` after its head.
    ///
    /// Give a gap of zero for a request without a body: there is no second write to wait for.
    pub fn new(io: T, seen: Seen, gap: Duration) -> Self {
        Self {
            io,
            seen,
            split: true,
            gap,
            at: At::Head(HeadEnd::default()),
            pause: None,
            body_waits: false,
        }
    }

    /// The same without the split: a write may carry the head and some of the body.
    pub fn off(io: T, seen: Seen) -> Self {
        Self {
            split: false,
            ..Self::new(io, seen, Duration::ZERO)
        }
    }

    /// The wrapped connection.
    pub fn into_inner(self) -> T {
        self.io
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for SplitWrites<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(poll_pause(&mut this.pause, cx));
        if this.body_waits {
            // The write wakes us.
            return Poll::Pending;
        }
        Pin::new(&mut this.io).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for SplitWrites<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if poll_pause(&mut this.pause, cx).is_pending() {
            this.body_waits = true;
            return Poll::Pending;
        }
        let io = Pin::new(&mut this.io);
        let At::Head(head_end) = &mut this.at else {
            let result = ready!(io.poll_write_vectored(cx, bufs));
            if std::mem::take(&mut this.body_waits) {
                cx.waker().wake_by_ref();
            }
            return Poll::Ready(result);
        };

        let written = ready!(if this.split {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let used = up_to_head_end(*head_end, bufs, &mut slices);
            io.poll_write_vectored(cx, &slices[..used])
        } else {
            io.poll_write_vectored(cx, bufs)
        })?;
        let (of_head, ended) = head_part(head_end, bufs, written);
        this.seen.wrote_of_head(of_head);
        if ended {
            this.at = At::Body;
            this.seen.head_written();
            if !this.gap.is_zero() {
                this.pause = Some(Pause::start(this.gap)?);
            }
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

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

/// Goes over the bytes the kernel took: how many are the head's, and whether its end was among them.
fn head_part(head_end: &mut HeadEnd, bufs: &[IoSlice<'_>], written: usize) -> (usize, bool) {
    let mut before = 0;
    for buf in bufs {
        let part = &buf[..(written - before).min(buf.len())];
        if let Some(end) = head_end.feed(part) {
            return (before + end, true);
        }
        before += part.len();
    }
    (before, false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Instant;
    use tokio::io::AsyncWriteExt;

    /// Notes each write it gets, and takes at most `most` bytes of each.
    #[derive(Default)]
    struct Writes {
        calls: Vec<(Vec<u8>, Option<Instant>)>,
        most: Option<usize>,
    }

    impl AsyncWrite for Writes {
        fn poll_write(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.poll_write_vectored(cx, &[IoSlice::new(buf)])
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bufs: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let mut bytes: Vec<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).collect();
            bytes.truncate(self.most.unwrap_or(bytes.len()));
            let taken = bytes.len();
            self.calls.push((bytes, Some(Instant::now())));
            Poll::Ready(Ok(taken))
        }

        fn is_write_vectored(&self) -> bool {
            true
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    const HEAD: &[u8] = b"POST / HTTP/1.1\r\nHost: x\r\n\r\n";

    async fn write_all(split: &mut SplitWrites<Writes>, pieces: &[&[u8]]) {
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
        let mut split = SplitWrites::new(Writes::default(), Seen::default(), gap);
        write_all(&mut split, &[HEAD, b"body"]).await;
        let calls = split.into_inner().calls;
        assert_eq!(calls.len(), 2);
        assert_eq!(calls[0].0, HEAD);
        assert_eq!(calls[1].0, b"body");
        assert!(calls[1].1.unwrap() - calls[0].1.unwrap() >= gap);
    }

    #[tokio::test]
    async fn an_answer_that_came_during_the_gap_is_read_after_the_body_is_out() {
        let (near, mut far) = tokio::io::duplex(1024);
        let mut split = SplitWrites::new(near, Seen::default(), Duration::from_millis(1));
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
        let seen = Seen::default();
        let mut joined = SplitWrites::off(Writes::default(), seen.clone());
        write_all(&mut joined, &[HEAD, b"body"]).await;
        assert_eq!(joined.into_inner().calls.len(), 1);
        assert_eq!(seen.head_bytes(), HEAD.len() as u64);
        assert_eq!(seen.phase(), crate::Phase::SendingBody);
    }

    proptest! {
        #[test]
        fn no_write_crosses_the_border(body in proptest::collection::vec(any::<u8>(), 0..40), most in 1usize..50) {
            let io = Writes { calls: Vec::new(), most: Some(most) };
            let seen = Seen::default();
            let mut split = SplitWrites::new(io, seen.clone(), Duration::ZERO);
            block_on(write_all(&mut split, &[HEAD, &body]));
            let mut sent = Vec::new();
            for (call, _) in split.into_inner().calls {
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
