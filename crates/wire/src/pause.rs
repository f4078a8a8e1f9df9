//! A pause as exact as the kernel's timers.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::net::unix::pipe::Receiver;

/// A pause as exact as the kernel's timers are (`timerfd_create(2)`).
///
/// tokio's own timer counts whole milliseconds and rounds up: a pause of 500 µs would take one to two
/// milliseconds, and which reset comes of it depends on such differences.
#[derive(Debug)]
pub struct Pause(Receiver);

impl Pause {
    /// Starts a pause now. A pause of zero is over at once.
    ///
    /// # Errors
    /// As `timerfd_create(2)`: no descriptor is left.
    pub fn start(time: Duration) -> io::Result<Self> {
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?;
        let none = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // A time of zero would disarm the timer.
        let time = time.max(Duration::from_nanos(1));
        let time = Itimerspec {
            it_interval: none,
            it_value: Timespec {
                tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: time.subsec_nanos().into(),
            },
        };
        timerfd_settime(&timer, TimerfdTimerFlags::empty(), &time)?;
        // Making tokio's `AsyncFd` is unsafe, making its pipe is not: the pipe only polls, and a timer can be polled.
        Ok(Self(Receiver::from_file_unchecked(timer.into())?))
    }
}

impl Future for Pause {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // An error means that the runtime shuts down: nothing is left to wait for.
        self.0.poll_read_ready(cx).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[tokio::test]
    async fn a_pause_lasts_at_least_its_time() {
        for time in [Duration::ZERO, Duration::from_micros(300)] {
            let start = Instant::now();
            Pause::start(time).unwrap().await;
            assert!(start.elapsed() >= time);
        }
    }
}
