use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use super::Plan;
use super::drain::{Answered, Bound, STALL, answered, script};
use super::link::Link;
use super::probe::Plain;

/// The search goes up to here.
const MOST_TIME: Duration = Duration::from_millis(5500);

/// Bytes of one round, on all its connections: one each 10 ms.
const ROUND: usize = 550;

/// Connections of one round: what a server reads of one may be a byte.
const AT_ONCE: usize = 8;

/// Most rounds; a round that brings little is the last.
const ROUNDS: usize = 8;

/// Between two looks for a reset, and for an ACK.
const LOOK: Duration = Duration::from_millis(5);
const LOOK_FOR_ACK: Duration = Duration::from_millis(1);

/// For how long the server reads on while single bytes come, of which it reads `bytes` on one connection: rounds
/// of bytes inside the interval found so far, until it is narrow or `end` comes.
pub(super) async fn drip(
    plan: &Arc<Plan>,
    plain: &Arc<Plain>,
    bytes: u64,
    end: Instant,
) -> Option<Bound> {
    // Half of them: the last one that it reads may make it close.
    let each = usize::try_from(bytes / 2).unwrap_or(ROUND).clamp(1, ROUND);
    let connections = match plain.one_at_a_time {
        true => 1,
        false => ROUND.div_ceil(each).min(AT_ONCE),
    };
    let found = Arc::new(Found::default());
    for _ in 0..ROUNDS {
        let (low, high) = found.between();
        let mut running = JoinSet::new();
        for times in places(low, high, each, connections) {
            let (plan, plain) = (Arc::clone(plan), Arc::clone(plain));
            let found = Arc::clone(&found);
            running.spawn(async move { one(&plan, &plain, &times, &found).await });
        }
        let in_time = timeout_at(end, running.join_all()).await.is_ok();
        let (now_low, now_high) = found.between();
        let before = high - low;
        let now = now_high.saturating_sub(now_low);
        if !in_time || is_narrow(now_low, now_high) || now > before - before / 10 {
            break;
        }
    }
    found.bound()
}

/// Whether an interval says enough: a tenth of what lies in it, but no less than our own clock can tell.
pub(super) fn is_narrow(low: Duration, high: Duration) -> bool {
    high.saturating_sub(low) <= (high / 10).max(Duration::from_millis(20))
}

/// Evenly inside the interval, a run of them for each connection.
fn places(low: Duration, high: Duration, each: usize, connections: usize) -> Vec<Vec<Duration>> {
    let all = (each * connections).min(ROUND);
    let step = (high - low) / u32::try_from(all + 1).unwrap_or(u32::MAX);
    let times = std::iter::successors(Some(low + step), |time| Some(*time + step));
    let times: Vec<_> = times.take(all).collect();
    times.chunks(each).map(<[Duration]>::to_vec).collect()
}

/// What the connections have found together, in microseconds since the answer.
#[derive(Debug)]
struct Found {
    /// The latest byte that was acknowledged.
    open: AtomicU64,
    /// The soonest reset; `u64::MAX` is none.
    closed: AtomicU64,
}

impl Default for Found {
    fn default() -> Self {
        Self {
            open: AtomicU64::new(0),
            closed: AtomicU64::new(u64::MAX),
        }
    }
}

impl Found {
    fn open(&self, at: Duration) {
        self.open.fetch_max(micros(at), Ordering::Relaxed);
    }

    fn closed(&self, at: Duration) {
        self.closed.fetch_min(micros(at), Ordering::Relaxed);
    }

    fn is_closed_by(&self, time: Duration) -> bool {
        self.closed.load(Ordering::Relaxed) <= micros(time)
    }

    /// Where to search on. A server is not always as quick: what one connection saw may contradict another.
    fn between(&self) -> (Duration, Duration) {
        let open = Duration::from_micros(self.open.load(Ordering::Relaxed));
        let closed = Duration::from_micros(self.closed.load(Ordering::Relaxed));
        (open.min(closed), closed.min(MOST_TIME).max(open))
    }

    /// `None` if no connection came about.
    fn bound(&self) -> Option<Bound> {
        let (low, high) = self.between();
        let is_closed = self.closed.load(Ordering::Relaxed) < u64::MAX;
        (is_closed || !low.is_zero()).then(|| Bound {
            at_least: millis(low),
            less_than: is_closed.then(|| millis(high) + 1),
        })
    }
}

/// A byte at each of these times after the answer, until a reset comes here or came elsewhere before.
async fn one(plan: &Plan, plain: &Plain, times: &[Duration], found: &Found) {
    let script = script(plan);
    let Ok(Answered {
        mut link,
        begun,
        ended,
    }) = answered(plan, &script, plain).await
    else {
        return;
    };
    for time in times {
        loop {
            if link.take_error().is_some() {
                return found.closed(begun.elapsed());
            }
            if found.is_closed_by(*time) {
                return;
            }
            let left = time.saturating_sub(ended.elapsed());
            if left.is_zero() {
                break;
            }
            sleep(left.min(LOOK)).await;
        }
        // The answer ended between `begun` and `ended`: each is on its safe side.
        let sent = ended.elapsed();
        match link.try_write(b"x") {
            Some(Ok(_)) => match fate(&mut link).await {
                Fate::Read => found.open(sent),
                Fate::Reset => return found.closed(begun.elapsed()),
                Fate::Unknown => return,
            },
            Some(Err(_)) => return found.closed(begun.elapsed()),
            None => return,
        }
    }
}

/// What became of a byte.
enum Fate {
    /// It was acknowledged, and no reset followed: the server's socket was open.
    Read,
    Reset,
    Unknown,
}

/// Waits for the ACK or the reset of a byte: the write itself succeeds on a connection that the server has closed.
async fn fate(link: &mut Link) -> Fate {
    let round_trip = link.round_trip().min(STALL);
    let sent = Instant::now();
    loop {
        let acknowledged = link.unsent() == 0;
        if link.take_error().is_some() {
            return Fate::Reset;
        }
        match sent.elapsed() {
            waited if acknowledged && waited >= round_trip => return Fate::Read,
            // An ACK may be late by 40 ms.
            waited if waited >= round_trip + STALL => return Fate::Unknown,
            _ => sleep(LOOK_FOR_ACK).await,
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_lies_inside_the_interval() {
        let at = Duration::from_millis;
        assert_eq!(
            places(at(1000), at(1900), 4, 2),
            [
                [1100, 1200, 1300, 1400].map(at),
                [1500, 1600, 1700, 1800].map(at)
            ]
        );
        let many = places(at(0), MOST_TIME, ROUND, 1);
        assert_eq!((many.len(), many[0].len()), (1, ROUND));
    }

    #[test]
    fn connections_that_contradict_each_other_make_an_interval() {
        let at = Duration::from_millis;
        let found = Found::default();
        assert_eq!(found.bound(), None);
        found.open(at(1010));
        assert_eq!(found.between(), (at(1010), MOST_TIME));
        found.closed(at(1000));
        assert_eq!(found.between(), (at(1000), at(1010)));
        let bound = found.bound().unwrap();
        assert_eq!((bound.at_least, bound.less_than), (1000, Some(1011)));
    }
}
