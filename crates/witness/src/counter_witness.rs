use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::sleep;

use crate::{Counted, Counters, monotonic_now};

/// How old a reading may be when a connection begins or ends that is not alone: reading takes about 50 µs of a
/// processor's time.
const FRESH: Duration = Duration::from_millis(10);

/// Reads the counters of the network namespace around connections, and says whose a change can be. Cloning shares it.
#[derive(Debug, Clone)]
pub struct CounterWitness(Arc<Mutex<Books>>);

#[derive(Debug)]
struct Books {
    living: usize,
    /// How many connections there have been.
    births: u64,
    /// The latest reading, and when it was begun.
    latest: (Duration, Counters),
}

/// The time during which a connection lives, from [`CounterWitness::begin`] to [`Window::ended`] or its drop.
#[derive(Debug)]
pub struct Window {
    witness: CounterWitness,
    before: Counters,
    /// The number of the connection, if none other lived when it began.
    alone: Option<u64>,
}

/// A connection that has ended.
#[derive(Debug)]
pub struct Past {
    witness: CounterWitness,
    before: Counters,
    /// The counters at its end, of one that was alone.
    after: Option<Counters>,
    ended: Duration,
}

impl CounterWitness {
    /// Reads the counters once.
    ///
    /// # Errors
    /// As [`Counters::read`].
    pub fn open() -> io::Result<Self> {
        Ok(Self(Arc::new(Mutex::new(Books {
            living: 0,
            births: 0,
            latest: (monotonic_now(), Counters::read()?),
        }))))
    }

    /// A connection begins.
    pub fn begin(&self) -> Window {
        let mut books = self.books();
        let alone = books.living == 0;
        if alone || books.age() >= FRESH {
            // A failure shows as an older reading.
            let _ = books.read();
        }
        books.living += 1;
        books.births += 1;
        Window {
            witness: self.clone(),
            before: books.latest.1,
            alone: alone.then_some(books.births),
        }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        // No code panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    fn read(&mut self) -> io::Result<Counters> {
        let now = monotonic_now();
        self.latest = (now, Counters::read()?);
        Ok(self.latest.1)
    }

    fn age(&self) -> Duration {
        monotonic_now().saturating_sub(self.latest.0)
    }
}

impl Window {
    /// The connection has ended. If it was alone the counters are read now, for the next one may begin at once.
    pub fn ended(self) -> Past {
        let mut books = self.witness.books();
        let alone = self.alone == Some(books.births);
        let after = if alone { books.read().ok() } else { None };
        drop(books);
        Past {
            witness: self.witness.clone(),
            before: self.before,
            after,
            ended: monotonic_now(),
        }
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        self.witness.books().living -= 1;
    }
}

impl Past {
    /// What the counters did while the connection lived; `None` if they cannot be read any more.
    ///
    /// Of connections that were not alone, those that end within 10 ms share a reading, which this waits for.
    pub async fn counted(self) -> Option<Counted> {
        if let Some(after) = self.after {
            return Some(Counted {
                change: after - self.before,
                alone: true,
            });
        }
        loop {
            let pause = {
                let mut books = self.witness.books();
                if books.latest.0 < self.ended && books.age() >= FRESH {
                    books.read().ok()?;
                }
                if books.latest.0 >= self.ended {
                    return Some(Counted {
                        change: books.latest.1 - self.before,
                        alone: false,
                    });
                }
                FRESH.saturating_sub(books.age())
            };
            sleep(pause).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn two_at_once_are_not_alone() {
        let witness = CounterWitness::open().unwrap();
        let alone = async |window: Window| window.ended().counted().await.unwrap().alone;
        assert!(alone(witness.begin()).await);
        let (first, second) = (witness.begin(), witness.begin());
        assert!(!alone(first).await);
        assert!(!alone(second).await, "it was not at first");
        assert!(alone(witness.begin()).await);
        drop(witness.begin());
        assert_eq!(witness.books().living, 0);
    }

    /// Whether others lived at that time or not: what happened before the end is in the change.
    #[tokio::test]
    async fn a_reset_is_counted() {
        use std::io::Write as _;
        use std::net::{TcpListener, TcpStream};

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let witness = CounterWitness::open().unwrap();
        for others in [0, 1] {
            let another = (others == 1).then(|| witness.begin());
            let window = witness.begin();
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (server, _) = listener.accept().unwrap();
            client.write_all(b"x").unwrap();
            server.peek(&mut [0]).unwrap();
            drop(server);
            let counted = window.ended().counted().await.unwrap();
            // Other tests may reset theirs at the same time.
            assert!(counted.change.abort_on_close >= 1, "{others} others");
            drop(another);
        }
    }
}
