//! The pool of upstream connections that wait for a request.

use std::collections::VecDeque;
use std::io;
use std::mem::MaybeUninit;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::ReadBuf;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::exchange::Finished;

/// Limit of the connections that wait for a request.
pub(crate) const MAX_IDLE: usize = 32;

/// Limit of the time that a connection waits for a request.
const IDLE_LIMIT: Duration = Duration::from_secs(60);

/// An upstream connection between two requests.
#[derive(Debug)]
pub(crate) struct Idle {
    pub(crate) stream: TcpStream,
    /// The connection's last exchange; a reset of the idle connection belongs to it.
    pub(crate) finished: Finished,
    until: Instant,
}

/// Upstream connections that are idle, the most recently used last.
///
/// A connection is looked at when it is taken. An end that comes after this look meets the next request: that is the
/// keep-alive race, which no look can prevent.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    state: Mutex<State>,
    put: Notify,
}

#[derive(Debug, Default)]
struct State {
    idle: VecDeque<Idle>,
    closed: bool,
}

/// An idle connection that leaves the pool, and why.
#[derive(Debug)]
pub(crate) enum Left {
    /// A FIN came, or bytes that no request asked for.
    Readable(Idle),
    /// A RST came.
    Failed(Idle, io::Error),
    /// No request took the connection for [`IDLE_LIMIT`].
    Expired(Idle),
}

impl Pool {
    fn state(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a connection for the next request. Returns the surplus connection, if there is one: the least recently used
    /// if the pool is full, this one if the pool is closed.
    pub(crate) fn put(&self, stream: TcpStream, finished: Finished) -> Option<Idle> {
        let idle = Idle {
            stream,
            finished,
            until: Instant::now() + IDLE_LIMIT,
        };
        let mut state = self.state();
        if state.closed {
            return Some(idle);
        }
        state.idle.push_back(idle);
        self.put.notify_one();
        if state.idle.len() > MAX_IDLE {
            state.idle.pop_front()
        } else {
            None
        }
    }

    /// Takes the most recently used connection and looks at its socket: with bytes, a FIN or a RST in it, the connection
    /// is not for a request.
    ///
    /// The look is a system call, `recv(MSG_PEEK)`: tokio knows only what epoll has reported, and [`Pool::left`] may not
    /// have run since.
    pub(crate) fn take(&self) -> Option<Result<Idle, Left>> {
        let idle = self.state().idle.pop_back()?;
        let peeked = SockRef::from(&idle.stream).peek(&mut [MaybeUninit::uninit()]);
        Some(match peeked {
            Ok(_) => Err(Left::Readable(idle)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(idle),
            Err(error) => Err(Left::Failed(idle, error)),
        })
    }

    /// Closes the pool: it keeps no more connections. Returns the connections it had.
    pub(crate) fn close(&self) -> VecDeque<Idle> {
        let mut state = self.state();
        state.closed = true;
        std::mem::take(&mut state.idle)
    }

    /// Waits until a connection leaves the pool without a request. For one watcher.
    pub(crate) async fn left(&self) -> Left {
        loop {
            let first = self.state().idle.front().map(|idle| idle.until);
            tokio::select! {
                biased;
                left = std::future::poll_fn(|cx| self.poll_left(cx)) => return left,
                () = sleep_until(first.unwrap_or_else(Instant::now)), if first.is_some() => {
                    // The connection may have been taken meanwhile.
                    let now = Instant::now();
                    let mut state = self.state();
                    if state.idle.front().is_some_and(|idle| idle.until <= now)
                        && let Some(idle) = state.idle.pop_front()
                    {
                        return Left::Expired(idle);
                    }
                }
                // A new connection has to be polled too.
                () = self.put.notified() => {}
            }
        }
    }

    fn poll_left(&self, cx: &mut Context<'_>) -> Poll<Left> {
        let mut state = self.state();
        let mut byte = [0];
        let found = state.idle.iter().enumerate().find_map(|(at, idle)| {
            // tokio asks the kernel only after epoll has reported an event.
            match idle.stream.poll_peek(cx, &mut ReadBuf::new(&mut byte)) {
                Poll::Pending => None,
                Poll::Ready(peeked) => Some((at, peeked)),
            }
        });
        let Some((at, peeked)) = found else {
            return Poll::Pending;
        };
        match (state.idle.remove(at), peeked) {
            (Some(idle), Ok(_)) => Poll::Ready(Left::Readable(idle)),
            (Some(idle), Err(error)) => Poll::Ready(Left::Failed(idle, error)),
            // Does not happen: it was found under the same lock.
            (None, _) => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::tests::finished;
    use rstlab_wire::close;
    use std::net::Shutdown;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    /// Puts `count` connections into the pool, a second apart; returns their other ends.
    async fn fill(pool: &Pool, count: usize) -> Vec<TcpStream> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut peers = Vec::new();
        for _ in 0..count {
            let stream = TcpStream::connect(address).await.unwrap();
            peers.push(listener.accept().await.unwrap().0);
            let surplus = pool.put(stream, finished());
            assert!(surplus.is_none());
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        peers
    }

    fn is_of(idle: &Idle, peer: &TcpStream) -> bool {
        idle.stream.local_addr().unwrap() == peer.peer_addr().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn the_connection_used_last_is_taken_first() {
        let pool = Pool::default();
        let peers = fill(&pool, 3).await;
        assert!(is_of(&pool.take().unwrap().unwrap(), &peers[2]));
        assert!(is_of(&pool.take().unwrap().unwrap(), &peers[1]));
        assert!(is_of(&pool.take().unwrap().unwrap(), &peers[0]));
        assert!(pool.take().is_none());
    }

    /// Nobody waits for the pool here: neither tokio nor [`Pool::left`] has seen what came.
    #[tokio::test(start_paused = true)]
    async fn a_connection_on_which_something_came_is_not_for_a_request() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let ends: [fn(TcpStream) -> Option<TcpStream>; 3] = [
            |peer| peer.try_write(b"stray").is_ok().then_some(peer),
            |peer| {
                SockRef::from(&peer).shutdown(Shutdown::Write).unwrap();
                Some(peer)
            },
            |peer| {
                close::abort(peer);
                None
            },
        ];
        for (what, end) in ["bytes", "FIN", "RST"].into_iter().zip(ends) {
            let pool = Pool::default();
            let usable = fill(&pool, 1).await;
            let stream = TcpStream::connect(address).await.unwrap();
            let (peer, _) = listener.accept().await.unwrap();
            peer.writable().await.unwrap();
            pool.put(stream, finished());
            // Loopback delivers it before the call returns.
            let _peer = end(peer);
            let left = pool.take().unwrap().unwrap_err();
            assert_eq!(
                matches!(left, Left::Failed(..)),
                what == "RST",
                "{what}: {left:?}"
            );
            assert!(is_of(&pool.take().unwrap().unwrap(), &usable[0]), "{what}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_pool_gives_up_the_connection_used_least_recently() {
        let pool = Pool::default();
        let mut peers = fill(&pool, MAX_IDLE).await;
        let taken = pool.take().unwrap().unwrap();
        peers.extend(fill(&pool, 1).await);
        let surplus = pool.put(taken.stream, taken.finished).unwrap();
        assert!(is_of(&surplus, &peers[0]));
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_waits_a_minute() {
        let pool = Pool::default();
        let start = Instant::now();
        let peers = fill(&pool, 3).await;
        drop(pool.take());
        for (peer, seconds) in [(&peers[0], 60), (&peers[1], 61)] {
            let Left::Expired(idle) = pool.left().await else {
                panic!("nothing came");
            };
            assert!(is_of(&idle, peer));
            assert_eq!(start.elapsed().as_secs(), seconds);
        }
    }

    #[tokio::test]
    async fn a_connection_put_while_the_pool_is_watched_is_watched_too() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let pool = Pool::default();
        let putting = async {
            let stream = TcpStream::connect(address).await.unwrap();
            let (peer, _) = listener.accept().await.unwrap();
            pool.put(stream, finished());
            drop(peer);
        };
        let (left, ()) = tokio::join!(pool.left(), putting);
        let Left::Readable(mut idle) = left else {
            panic!("{left:?}");
        };
        assert_eq!(idle.stream.read(&mut [0]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_closed_pool_keeps_nothing() {
        let pool = Pool::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        assert!(pool.close().is_empty());
        assert!(pool.put(stream, finished()).is_some());
        assert!(pool.take().is_none());
    }
}
