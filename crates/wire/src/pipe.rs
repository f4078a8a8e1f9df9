//! A pipe that carries a body from socket to socket inside the kernel, and the placeholders of its bytes.

use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::Slot;

/// Size of a pipe, and limit of one `splice(2)`. A page of the kernel has one of the pipe's places, so that a new pipe,
/// which has 16, takes 64 KiB at a time from loopback, and less from a network.
const PIPE_BYTES: usize = 256 * 1024;

/// Stands for bytes that lie in a pipe. The placeholder itself is never sent: its slices are known by their addresses.
static PLACEHOLDER: [u8; PIPE_BYTES] = [0; PIPE_BYTES];

fn is_placeholder(slice: &[u8]) -> bool {
    let (all, part) = (PLACEHOLDER.as_ptr_range(), slice.as_ptr_range());
    all.start <= part.start && part.end <= all.end && !slice.is_empty()
}

/// A pipe (`pipe(2)`) that carries one piece of a body at a time from socket to socket.
///
/// `splice(2)` hands the kernel's pages on: the bytes are not copied, and the program never sees them.
#[derive(Debug)]
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    filled_bytes: AtomicUsize,
    /// Of the two descriptors; free when those are closed.
    _slot: Slot,
}

impl Pipe {
    /// Makes a pipe, whose two descriptors have `slot`.
    ///
    /// # Errors
    /// As `pipe2(2)`: no descriptor is left.
    pub fn new(slot: Slot) -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        // Fails if the user has many pipes (`/proc/sys/fs/pipe-user-pages-soft`): a smaller one will do.
        let _ = fcntl_setpipe_size(&write, PIPE_BYTES);
        Ok(Self {
            read,
            write,
            filled_bytes: AtomicUsize::new(0),
            _slot: slot,
        })
    }

    /// The bytes in the pipe.
    pub fn filled_bytes(&self) -> usize {
        self.filled_bytes.load(Ordering::Relaxed)
    }

    /// What stands for the bytes in the pipe, for a connection that writes by [`PipeOut::try_write`].
    pub fn placeholder(&self) -> Bytes {
        Bytes::from_static(&PLACEHOLDER[..self.filled_bytes()])
    }

    /// Moves at most `limit` bytes of a socket's receive queue into the pipe, which must be empty: `EAGAIN` of a full
    /// pipe and of an empty socket are the same. Zero bytes are the end of the stream.
    fn poll_fill(
        &self,
        cx: &mut Context<'_>,
        from: &TcpStream,
        limit: usize,
    ) -> Poll<io::Result<usize>> {
        debug_assert_eq!(self.filled_bytes(), 0);
        let limit = limit.min(PIPE_BYTES);
        loop {
            ready!(from.poll_read_ready(cx))?;
            let moved = from.try_io(Interest::READABLE, || {
                let flags = SpliceFlags::NONBLOCK;
                Ok(splice(from, None, &self.write, None, limit, flags)?)
            });
            match moved {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(bytes) => {
                    self.filled_bytes.store(bytes, Ordering::Relaxed);
                    return Poll::Ready(Ok(bytes));
                }
                failed => return Poll::Ready(failed),
            }
        }
    }

    /// Moves at most `limit` bytes of the pipe into a socket's send queue.
    fn try_empty(&self, to: &TcpStream, limit: usize) -> io::Result<usize> {
        let moved = to.try_io(Interest::WRITABLE, || {
            let flags = SpliceFlags::NONBLOCK;
            Ok(splice(&self.read, None, to, None, limit, flags)?)
        })?;
        self.filled_bytes.fetch_sub(moved, Ordering::Relaxed);
        Ok(moved)
    }
}

/// The pipe whose bytes a connection is about to write. Clones are the same place.
#[derive(Debug, Clone, Default)]
pub struct PipeOut(Arc<Mutex<Option<Arc<Pipe>>>>);

impl PipeOut {
    fn pipe(&self) -> MutexGuard<'_, Option<Arc<Pipe>>> {
        // No code panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next writes have the pipe's placeholder among their bytes.
    pub fn put(&self, pipe: &Arc<Pipe>) {
        *self.pipe() = Some(Arc::clone(pipe));
    }

    /// Writes to a socket: real bytes by `writev(2)`, and for placeholders the pipe's bytes by `splice(2)`. Returns how
    /// many of the bytes are written.
    ///
    /// # Errors
    /// As those calls; [`io::ErrorKind::InvalidData`] if `bufs` does not have a placeholder for each byte in the pipe,
    /// and no other: a layer between has copied the placeholder, and nothing may be written any more.
    pub fn try_write(&self, to: &TcpStream, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut place = self.pipe();
        let placeholders = bufs.iter().filter(|buf| is_placeholder(buf));
        let placeholder_bytes: usize = placeholders.map(|buf| buf.len()).sum();
        let Some(pipe) = place.as_ref() else {
            return match placeholder_bytes {
                0 => to.try_write_vectored(bufs),
                _ => Err(mismatch()),
            };
        };
        if placeholder_bytes != pipe.filled_bytes() {
            return Err(mismatch());
        }
        let real = bufs.iter().take_while(|buf| !is_placeholder(buf)).count();
        if real > 0 {
            return to.try_write_vectored(&bufs[..real]);
        }
        let moved = pipe.try_empty(to, bufs[0].len())?;
        if pipe.filled_bytes() == 0 {
            *place = None;
        }
        Ok(moved)
    }
}

fn mismatch() -> io::Error {
    let why = "the bytes to be sent do not agree with those in the pipe";
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// A connection whose bytes can be read into a pipe.
pub trait SpliceRead {
    /// Reads at most `limit` bytes into an empty pipe; returns how many, and zero at the end of the stream.
    ///
    /// # Errors
    /// As [`AsyncRead::poll_read`](tokio::io::AsyncRead::poll_read).
    fn poll_splice(
        &mut self,
        cx: &mut Context<'_>,
        pipe: &Pipe,
        limit: usize,
    ) -> Poll<io::Result<usize>>;
}

impl SpliceRead for TcpStream {
    fn poll_splice(
        &mut self,
        cx: &mut Context<'_>,
        pipe: &Pipe,
        limit: usize,
    ) -> Poll<io::Result<usize>> {
        pipe.poll_fill(cx, self, limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Slots;
    use std::future::poll_fn;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap());
        let (near, accepted) = tokio::join!(near, listener.accept());
        (near.unwrap(), accepted.unwrap().0)
    }

    /// A pipe with `bytes` in it.
    async fn filled(bytes: &[u8]) -> Arc<Pipe> {
        let (mut from, mut source) = pair().await;
        source.write_all(bytes).await.unwrap();
        let slots = Slots::new(2, 0);
        let pipe = Pipe::new(slots.pipe().unwrap()).unwrap();
        let limit = bytes.len();
        let moved = poll_fn(|cx| from.poll_splice(cx, &pipe, limit)).await;
        assert_eq!(moved.unwrap(), limit);
        Arc::new(pipe)
    }

    #[tokio::test]
    async fn a_placeholder_among_real_bytes_sends_the_bytes_in_the_pipe() {
        let pipe = filled(b"from the pipe").await;
        let placeholder = pipe.placeholder();
        let out = PipeOut::default();
        out.put(&pipe);
        let (to, mut far) = pair().await;
        to.writable().await.unwrap();
        // As hyper does: what is written goes from the front of the buffers.
        let bufs = [&b"head "[..], &placeholder[..], &b" tail"[..]];
        let mut bufs = &mut bufs.map(IoSlice::new)[..];
        while !bufs.is_empty() {
            let written = out.try_write(&to, bufs).unwrap();
            IoSlice::advance_slices(&mut bufs, written);
        }
        drop(to);
        let mut got = String::new();
        far.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "head from the pipe tail");
        assert_eq!(pipe.filled_bytes(), 0);
    }

    #[tokio::test]
    async fn a_placeholder_is_never_sent_if_it_does_not_agree_with_the_pipe() {
        let pipe = filled(b"from the pipe").await;
        let placeholder = pipe.placeholder();
        let copied = placeholder.to_vec();
        let (to, mut far) = pair().await;
        to.writable().await.unwrap();
        let out = PipeOut::default();
        let refused = |bytes: &[u8]| {
            let error = out.try_write(&to, &[IoSlice::new(bytes)]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        };
        refused(&placeholder);
        out.put(&pipe);
        refused(&copied);
        refused(&placeholder[1..]);
        drop(to);
        assert_eq!(far.read(&mut [0]).await.unwrap(), 0);
    }
}
