use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::ReadBuf;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::report::Exchange;

/// Most connections that wait for a request.
pub(crate) const MOST_IDLE: usize = 32;

/// How long one of them waits.
const IDLE_LIMIT: Duration = Duration::from_secs(60);

/// An upstream connection between two requests.
#[derive(Debug)]
pub(crate) struct Idle {
    pub(crate) stream: TcpStream,
    /// Its last exchange: what happens to an idle connection belongs to that.
    pub(crate) exchange: Arc<Exchange>,
    until: Instant,
}

/// Upstream connections that are idle, the most recently used last.
///
/// Nobody asks a connection whether it still lives when it is taken: what [`Pool::left`] has not seen yet, the
/// next request meets. That is the keep-alive race.
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
    /// A FIN, or bytes that nobody asked for.
    Readable(Idle),
    /// A RST.
    Failed(Idle, io::Error),
    /// Nobody wanted it for [`IDLE_LIMIT`].
    Expired(Idle),
}

impl Pool {
    fn state(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a connection for the next request; returns one for which there is no place, the least recently
    /// used or, once the pool is closed, this one.
    pub(crate) fn put(&self, stream: TcpStream, exchange: Arc<Exchange>) -> Option<Idle> {
        let idle = Idle {
            stream,
            exchange,
            until: Instant::now() + IDLE_LIMIT,
        };
        let mut state = self.state();
        if state.closed {
            return Some(idle);
        }
        state.idle.push_back(idle);
        self.put.notify_one();
        if state.idle.len() > MOST_IDLE {
            state.idle.pop_front()
        } else {
            None
        }
    }

    /// The most recently used connection.
    pub(crate) fn take(&self) -> Option<Idle> {
        self.state().idle.pop_back()
    }

    /// Takes no more connections; returns those it had.
    pub(crate) fn close(&self) -> VecDeque<Idle> {
        let mut state = self.state();
        state.closed = true;
        std::mem::take(&mut state.idle)
    }

    /// Waits until a connection leaves the pool without having been taken. For one watcher.
    pub(crate) async fn left(&self) -> Left {
        loop {
            let first = self.state().idle.front().map(|idle| idle.until);
            tokio::select! {
                biased;
                left = std::future::poll_fn(|cx| self.poll_left(cx)) => return left,
                () = sleep_until(first.unwrap_or_else(Instant::now)), if first.is_some() => {
                    // It may have been taken meanwhile.
                    let now = Instant::now();
                    let mut state = self.state();
                    if state.idle.front().is_some_and(|idle| idle.until <= now)
                        && let Some(idle) = state.idle.pop_front()
                    {
                        return Left::Expired(idle);
                    }
                }
                // The new one has to be polled too.
                () = self.put.notified() => {}
            }
        }
    }

    fn poll_left(&self, cx: &mut Context<'_>) -> Poll<Left> {
        let mut state = self.state();
        let mut byte = [0];
        let found = state.idle.iter().enumerate().find_map(|(at, idle)| {
            // Asks the kernel only where epoll has told of something.
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
            // It was found there, under the same lock.
            (None, _) => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::exchange_for_tests;
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
            let surplus = pool.put(stream, Arc::new(exchange_for_tests(0, None)));
            assert!(surplus.is_none());
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        peers
    }

    fn is_of(idle: &Idle, peer: &TcpStream) -> bool {
        idle.stream.local_addr().unwrap() == peer.peer_addr().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn the_one_used_last_is_taken_first() {
        let pool = Pool::default();
        let peers = fill(&pool, 3).await;
        assert!(is_of(&pool.take().unwrap(), &peers[2]));
        assert!(is_of(&pool.take().unwrap(), &peers[1]));
        assert!(is_of(&pool.take().unwrap(), &peers[0]));
        assert!(pool.take().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn the_one_used_least_recently_makes_place() {
        let pool = Pool::default();
        let mut peers = fill(&pool, MOST_IDLE).await;
        let taken = pool.take().unwrap();
        peers.extend(fill(&pool, 1).await);
        let surplus = pool.put(taken.stream, taken.exchange).unwrap();
        assert!(is_of(&surplus, &peers[0]));
    }

    #[tokio::test(start_paused = true)]
    async fn each_waits_a_minute() {
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
    async fn one_that_comes_while_the_others_are_watched_is_watched_too() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let pool = Pool::default();
        let putting = async {
            let stream = TcpStream::connect(address).await.unwrap();
            let (peer, _) = listener.accept().await.unwrap();
            pool.put(stream, Arc::new(exchange_for_tests(0, None)));
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
        let exchange = Arc::new(exchange_for_tests(0, None));
        assert!(pool.put(stream, exchange).is_some());
        assert!(pool.take().is_none());
    }
}
