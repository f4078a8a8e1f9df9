use std::time::{Duration, Instant};

use tokio::io::Interest;
use tokio::time::timeout;

use super::{Client, End, MOST_BYTES, READ_DELAY, UNASKED, pause};

/// After a FIN, for a reset behind it: on one machine it comes before the write that causes it returns.
const AFTER_FIN: Duration = Duration::from_millis(1);

/// From elsewhere it comes a round trip after the write; a connect may have taken much longer, for a SYN was lost.
const MOST_ROUND_TRIP: Duration = Duration::from_millis(500);

/// After a response's end, for a server that said that it closes, and has not yet.
const UNTIL_CLOSE: Duration = Duration::from_millis(1500);

/// After a response's end, for a server that keeps the connection.
const UNTIL_LEFT_OPEN: Duration = Duration::from_millis(50);

impl Client<'_> {
    /// Whether the responses are whole and the server has not ended the connection.
    pub(in super::super) fn is_left_open(&self) -> bool {
        self.is_whole() && self.end.is_none() && self.failure.is_none()
    }

    /// Watches a connection that is left open, for a late reset.
    pub(in super::super) async fn watch_longer(&mut self) {
        let said_last = self.said_last();
        self.watch(if said_last {
            UNTIL_CLOSE
        } else {
            UNTIL_LEFT_OPEN
        })
        .await;
    }

    /// A server may close a kept connection between two requests (RFC 9112 §9.5): the next one is then not sent.
    pub(super) async fn look_between(&mut self) {
        if self.is_over() {
            return;
        }
        self.reading = false;
        pause(READ_DELAY).await;
        match self.link.try_read(&mut self.buf[..1]) {
            None => {}
            Some(Ok(0)) => {
                self.end = Some(End::Fin);
                self.closed_between = true;
            }
            Some(Ok(_)) => {
                self.end = Some(End::Bad(UNASKED.to_owned()));
            }
            Some(Err(error)) => {
                self.note("recv()", &error);
                self.end = Some(End::Reset);
                self.closed_between = true;
            }
        }
    }

    /// Watches for the end after a whole response: a FIN, a reset, or a reset behind a FIN.
    pub(in super::super) async fn watch(&mut self, limit: Duration) {
        if self.end.is_none() {
            // No end within the limit is an answer too.
            let _ = timeout(limit, self.until_end()).await;
        }
        if matches!(self.end, Some(End::Fin)) && self.failure.is_none() {
            // Behind a FIN no read tells of a reset.
            let round_trip = self.link.round_trip().min(MOST_ROUND_TRIP);
            let deadline = Instant::now() + AFTER_FIN + round_trip;
            loop {
                if let Some(error) = self.link.take_error() {
                    return self.note("getsockopt(SO_ERROR)", &error);
                }
                if self.link.unsent() == 0 || Instant::now() >= deadline {
                    break;
                }
                pause(AFTER_FIN / 4).await;
            }
        }
    }

    async fn until_end(&mut self) {
        let mut bytes = 0;
        while bytes < MOST_BYTES {
            match self.link.try_read(&mut self.buf) {
                None => {
                    let _ = self.link.ready(Interest::READABLE).await;
                }
                Some(Ok(0)) => return self.end = Some(End::Fin),
                Some(Ok(more)) => bytes += more as u64,
                Some(Err(error)) => {
                    self.note("recv()", &error);
                    return self.end = Some(End::Reset);
                }
            }
        }
    }
}
