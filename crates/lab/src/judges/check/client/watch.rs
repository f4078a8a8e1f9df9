//! Watches a connection after its responses: a FIN, a reset, or a reset behind a FIN.

use std::time::{Duration, Instant};

use tokio::io::Interest;
use tokio::time::{sleep, timeout};

use super::steps::{Client, ClientEnd, MAX_BYTES, pause};
use crate::judges::check::trial::SocketCall;

/// Time after a response's end for the FIN or reset that mostly comes with it.
const AFTER_END: Duration = Duration::from_millis(3);

/// Time after a FIN for a reset behind it: on one machine a reset comes before the write that causes it returns.
const AFTER_FIN: Duration = Duration::from_millis(1);

/// The longest round trip that is waited for. From another machine the reset comes a round trip after the write; a
/// connect may have taken much longer than a round trip because a SYN was lost.
const MAX_ROUND_TRIP: Duration = Duration::from_millis(500);

/// Time after a response's end for a server that said that it closes, and has not closed yet.
const UNTIL_CLOSE: Duration = Duration::from_millis(1500);

/// Time between two looks for a late reset.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Time after a response's end for a server that keeps the connection.
const UNTIL_LEFT_OPEN: Duration = Duration::from_millis(50);

impl Client<'_> {
    /// Plays the script, reads the responses to their end, and watches for the end of the connection.
    pub(in super::super) async fn play(&mut self) {
        let limit = self.manner.timeout + self.script.pauses();
        if timeout(limit, self.steps()).await.is_err() {
            self.end = Some(ClientEnd::TimedOut);
        }
        if self.is_whole() {
            self.watch(AFTER_END).await;
        }
    }

    /// Whether the responses are whole and the server has not ended the connection.
    pub(in super::super) fn is_left_open(&self) -> bool {
        self.is_whole() && self.end.is_none() && self.failure.is_none()
    }

    /// Whether a reset may still come: the server has not ended the connection, or it may only have half-closed.
    pub(in super::super) fn may_be_reset(&self) -> bool {
        self.is_left_open() || self.is_half_closed()
    }

    fn is_half_closed(&self) -> bool {
        let is_fin = matches!(self.end, Some(ClientEnd::Fin));
        self.script.watches_long && self.is_whole() && is_fin && self.failure.is_none()
    }

    /// Watches for a late reset.
    pub(in super::super) async fn watch_longer(&mut self) {
        if self.is_left_open() {
            let limit = match self.said_last() {
                true => UNTIL_CLOSE,
                false => UNTIL_LEFT_OPEN,
            };
            self.watch(limit).await;
        }
        let deadline = Instant::now() + UNTIL_CLOSE;
        while self.is_half_closed() && Instant::now() < deadline {
            sleep(LOOK_EVERY).await;
            if let Some(error) = self.socket.take_error() {
                self.note(SocketCall::SocketError, &error);
            }
        }
    }

    /// Watches for the end after a whole response: a FIN, a reset, or a reset behind a FIN.
    pub(in super::super) async fn watch(&mut self, limit: Duration) {
        if self.end.is_none() {
            // If the limit passes, the connection is left open.
            let _ = timeout(limit, self.until_end()).await;
        }
        if matches!(self.end, Some(ClientEnd::Fin)) && self.failure.is_none() {
            // After a FIN no read reports a reset.
            let round_trip = self.socket.round_trip().min(MAX_ROUND_TRIP);
            let deadline = Instant::now() + AFTER_FIN + round_trip;
            loop {
                if let Some(error) = self.socket.take_error() {
                    return self.note(SocketCall::SocketError, &error);
                }
                if self.socket.unsent() == 0 || Instant::now() >= deadline {
                    break;
                }
                pause(AFTER_FIN / 4).await;
            }
        }
    }

    async fn until_end(&mut self) {
        let mut bytes = 0;
        while bytes < MAX_BYTES {
            match self.socket.try_read(&mut self.buf) {
                None => {
                    let _ = self.socket.ready(Interest::READABLE).await;
                }
                Some(Ok(0)) => return self.end = Some(ClientEnd::Fin),
                Some(Ok(more)) => bytes += more as u64,
                Some(Err(error)) => {
                    self.note(SocketCall::Receive, &error);
                    return self.end = Some(ClientEnd::Reset);
                }
            }
        }
    }
}
