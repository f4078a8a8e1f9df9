//! Searches for how long a server reads on after an answer while single bytes come.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use super::answered::{AnsweredSocket, MAX_BYTES, STALL, answered, script};
use super::bytes::BytesRead;
use super::report::{Bound, Drain, DrainKind, is_narrow};
use crate::judges::check::client_socket::ClientSocket;
use crate::judges::check::plan::CheckPlan;
use crate::judges::check::probe::Plain;

/// The search ends here.
const MAX_TIME: Duration = Duration::from_millis(5500);

/// Bytes of one round on all its connections: one each 10 ms.
const ROUND_BYTES: usize = 550;

/// Connections of one round: a server may read a single byte on each.
const AT_ONCE: usize = 8;

/// The most rounds; a round that brings little is the last.
const MAX_ROUNDS: usize = 8;

/// Time between two looks for a reset.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Time between two looks for an ACK.
const LOOK_FOR_ACK_EVERY: Duration = Duration::from_millis(1);

/// Searches for how long the server reads on while single bytes come, within the bound that the search over bytes
/// found, until `end` at most.
pub(in super::super) async fn search_time(
    plan: &Arc<CheckPlan>,
    plain: &Arc<Plain>,
    found: BytesRead,
    end: Instant,
) -> Drain {
    let milliseconds = match found.kind {
        DrainKind::ReadsOn | DrainKind::Holds => {
            let most = found.bound.map_or(MAX_BYTES, |bound| bound.at_least);
            drip(plan, plain, most, end).await
        }
        _ => None,
    };
    Drain::new(found.kind, found.bound, milliseconds)
}

/// Sends single bytes in rounds, each inside the interval found so far, until the interval is narrow or `end` comes. The
/// server reads `bytes` on one connection.
async fn drip(
    plan: &Arc<CheckPlan>,
    plain: &Arc<Plain>,
    bytes: u64,
    end: Instant,
) -> Option<Bound> {
    // Half of the bytes: the last byte that the server reads may make it close.
    let each = usize::try_from(bytes / 2)
        .unwrap_or(ROUND_BYTES)
        .clamp(1, ROUND_BYTES);
    let connections = match plain.one_at_a_time {
        true => 1,
        false => ROUND_BYTES.div_ceil(each).min(AT_ONCE),
    };
    let found = Arc::new(OpenUntil::default());
    for _ in 0..MAX_ROUNDS {
        let (low, high) = found.between();
        let mut running = JoinSet::new();
        for times in times_inside(low, high, each, connections) {
            let (plan, plain) = (Arc::clone(plan), Arc::clone(plain));
            let found = Arc::clone(&found);
            running.spawn(async move { drip_on_one(&plan, &plain, &times, &found).await });
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

/// Times evenly inside the interval, a run of them for each connection.
fn times_inside(
    low: Duration,
    high: Duration,
    each: usize,
    connections: usize,
) -> Vec<Vec<Duration>> {
    let all = (each * connections).min(ROUND_BYTES);
    let step = (high - low) / u32::try_from(all + 1).unwrap_or(u32::MAX);
    let times = std::iter::successors(Some(low + step), |time| Some(*time + step));
    let times: Vec<_> = times.take(all).collect();
    times.chunks(each).map(<[Duration]>::to_vec).collect()
}

/// The server's socket was open until so long after its answer, as all connections together have found, in microseconds.
#[derive(Debug)]
struct OpenUntil {
    /// The latest byte that was acknowledged.
    open: AtomicU64,
    /// The earliest reset; `u64::MAX` means none.
    closed: AtomicU64,
}

impl Default for OpenUntil {
    fn default() -> Self {
        Self {
            open: AtomicU64::new(0),
            closed: AtomicU64::new(u64::MAX),
        }
    }
}

impl OpenUntil {
    fn open(&self, at: Duration) {
        self.open.fetch_max(micros(at), Ordering::Relaxed);
    }

    fn closed(&self, at: Duration) {
        self.closed.fetch_min(micros(at), Ordering::Relaxed);
    }

    fn is_closed_by(&self, time: Duration) -> bool {
        self.closed.load(Ordering::Relaxed) <= micros(time)
    }

    /// The interval to search next. A server is not always equally quick: connections may contradict each other.
    fn between(&self) -> (Duration, Duration) {
        let open = Duration::from_micros(self.open.load(Ordering::Relaxed));
        let closed = Duration::from_micros(self.closed.load(Ordering::Relaxed));
        (open.min(closed), closed.min(MAX_TIME).max(open))
    }

    /// `None` if no connection was made. A byte that a busy machine sent after the end of the search tells nothing more
    /// about a server that was never seen to close.
    fn bound(&self) -> Option<Bound> {
        let (low, high) = self.between();
        let is_closed = self.closed.load(Ordering::Relaxed) < u64::MAX;
        let low = if is_closed { low } else { low.min(MAX_TIME) };
        (is_closed || !low.is_zero()).then(|| Bound {
            at_least: millis(low),
            less_than: is_closed.then(|| millis(high) + 1),
        })
    }
}

/// Sends a byte at each of these times after the answer, until a reset comes on this connection or an earlier one came
/// on another.
async fn drip_on_one(plan: &CheckPlan, plain: &Plain, times: &[Duration], found: &OpenUntil) {
    let script = script(plan);
    let Ok(AnsweredSocket {
        mut socket,
        before_end,
        after_end,
    }) = answered(plan, &script, plain).await
    else {
        return;
    };
    for time in times {
        loop {
            if socket.take_error().is_some() {
                return found.closed(before_end.elapsed());
            }
            if found.is_closed_by(*time) {
                return;
            }
            let left = time.saturating_sub(after_end.elapsed());
            if left.is_zero() {
                break;
            }
            sleep(left.min(LOOK_EVERY)).await;
        }
        // The answer ended between the two moments: each bound uses the moment that makes the interval wider.
        let sent = after_end.elapsed();
        match socket.try_write(b"x") {
            Some(Ok(_)) => match fate(&mut socket).await {
                ByteFate::Read => found.open(sent),
                ByteFate::Reset => return found.closed(before_end.elapsed()),
                ByteFate::Unknown => return,
            },
            Some(Err(_)) => return found.closed(before_end.elapsed()),
            None => return,
        }
    }
}

/// What the server did with a byte.
enum ByteFate {
    /// The byte was acknowledged and no reset followed: the server's socket was open.
    Read,
    Reset,
    Unknown,
}

/// Waits for the ACK or the reset of a byte: the write itself succeeds on a connection that the server has closed.
async fn fate(socket: &mut ClientSocket) -> ByteFate {
    let round_trip = socket.round_trip().min(STALL);
    let sent = Instant::now();
    loop {
        let acknowledged = socket.unsent() == 0;
        if socket.take_error().is_some() {
            return ByteFate::Reset;
        }
        match sent.elapsed() {
            waited if acknowledged && waited >= round_trip => return ByteFate::Read,
            // An ACK may be late by 40 ms.
            waited if waited >= round_trip + STALL => return ByteFate::Unknown,
            _ => sleep(LOOK_FOR_ACK_EVERY).await,
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
    fn the_times_of_a_round_are_inside_the_interval() {
        let at = Duration::from_millis;
        assert_eq!(
            times_inside(at(1000), at(1900), 4, 2),
            [
                [1100, 1200, 1300, 1400].map(at),
                [1500, 1600, 1700, 1800].map(at)
            ]
        );
        let many = times_inside(at(0), MAX_TIME, ROUND_BYTES, 1);
        assert_eq!((many.len(), many[0].len()), (1, ROUND_BYTES));
    }

    #[test]
    fn a_byte_sent_late_does_not_move_the_end_of_the_search() {
        let found = OpenUntil::default();
        found.open(Duration::from_millis(8600));
        let bound = found.bound().unwrap();
        assert_eq!((bound.at_least, bound.less_than), (5500, None));
    }

    #[test]
    fn connections_that_contradict_each_other_make_an_interval() {
        let at = Duration::from_millis;
        let found = OpenUntil::default();
        assert_eq!(found.bound(), None);
        found.open(at(1010));
        assert_eq!(found.between(), (at(1010), MAX_TIME));
        found.closed(at(1000));
        assert_eq!(found.between(), (at(1000), at(1010)));
        let bound = found.bound().unwrap();
        assert_eq!((bound.at_least, bound.less_than), (1000, Some(1011)));
    }
}
