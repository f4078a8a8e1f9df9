//! Reads the counters around connections, and tells whether a change can be of one connection alone.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rstlab_wire::monotonic_now;
use tokio::time::sleep;

use crate::evidence::{Counted, Counters};

/// A reading that is not older than this serves for several connections that live at the same time, because reading the
/// counters takes about 50 µs of a processor's time.
const FRESH: Duration = Duration::from_millis(10);

/// Reads the counters of the network namespace around connections, and tells whether a change can be of one connection
/// alone. Clones share the readings.
#[derive(Debug, Clone)]
pub struct CounterWitness(Arc<Mutex<Readings>>);

#[derive(Debug)]
struct Readings {
    living: usize,
    /// How many connections have begun.
    births: u64,
    /// The latest reading, and when it was begun.
    latest: (Duration, Counters),
}

/// The time during which a connection lives, from [`CounterWitness::begin`] to [`Window::ended`] or its drop.
#[derive(Debug)]
pub struct Window {
    witness: CounterWitness,
    before: Counters,
    /// The number of the connection, if no other connection lived when it began.
    alone: Option<u64>,
}

/// A connection that has ended.
#[derive(Debug)]
pub struct Past {
    witness: CounterWitness,
    before: Counters,
    /// The counters at its end, if no other connection lived beside it.
    after: Option<Counters>,
    ended: Duration,
}

impl CounterWitness {
    /// Reads the counters once.
    ///
    /// # Errors
    /// As [`Counters::read`].
    pub fn open() -> io::Result<Self> {
        Ok(Self(Arc::new(Mutex::new(Readings {
            living: 0,
            births: 0,
            latest: (monotonic_now(), Counters::read()?),
        }))))
    }

    /// A connection begins.
    pub fn begin(&self) -> Window {
        let mut readings = self.readings();
        let alone = readings.living == 0;
        if alone || readings.age() >= FRESH {
            // If it fails, the older reading is used.
            let _ = readings.read();
        }
        readings.living += 1;
        readings.births += 1;
        Window {
            witness: self.clone(),
            before: readings.latest.1,
            alone: alone.then_some(readings.births),
        }
    }

    fn readings(&self) -> MutexGuard<'_, Readings> {
        // No code panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Readings {
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
    /// The connection has ended. If it was alone, the counters are read now, because the next connection may
    /// begin at once.
    pub fn ended(self) -> Past {
        let mut readings = self.witness.readings();
        let alone = self.alone == Some(readings.births);
        let after = if alone { readings.read().ok() } else { None };
        drop(readings);
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
        self.witness.readings().living -= 1;
    }
}

impl Past {
    /// How much the counters moved while the connection lived; `None` if they cannot be read any more.
    ///
    /// Connections that were not alone and end within 10 ms share a reading; this method waits for it.
    pub async fn counted(self) -> Option<Counted> {
        if let Some(after) = self.after {
            return Some(Counted {
                change: after - self.before,
                alone: true,
            });
        }
        loop {
            let pause = {
                let mut readings = self.witness.readings();
                if readings.latest.0 < self.ended && readings.age() >= FRESH {
                    readings.read().ok()?;
                }
                if readings.latest.0 >= self.ended {
                    return Some(Counted {
                        change: readings.latest.1 - self.before,
                        alone: false,
                    });
                }
                FRESH.saturating_sub(readings.age())
            };
            sleep(pause).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn of_two_connections_at_once_neither_is_alone() {
        let witness = CounterWitness::open().unwrap();
        let alone = async |window: Window| window.ended().counted().await.unwrap().alone;
        assert!(alone(witness.begin()).await);
        let (first, second) = (witness.begin(), witness.begin());
        assert!(!alone(first).await);
        assert!(!alone(second).await, "it was not alone at first");
        assert!(alone(witness.begin()).await);
        drop(witness.begin());
        assert_eq!(witness.readings().living, 0);
    }

    /// A RST before the end of the connection is in the change, whether other connections lived at that time or not.
    #[tokio::test]
    async fn a_reset_before_the_end_is_counted() {
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
