//! Reads the responses of a connection: when, how much, and what an end means.

use std::io;
use std::time::Duration;

use tokio::io::Interest;
use tokio::time::timeout;

use super::steps::{Client, ClientEnd, MAX_BYTES, READ_DELAY, pause};
use crate::judges::check::trial::SocketCall;

/// Size of the receive buffer once reading has begun, so that reading is quick.
const WIDE_BUFFER: usize = 1024 * 1024;

/// Time between two looks at the beginning of a response that has not come yet.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Said of bytes that follow a response before the next request was sent; they may also be the same response again.
const UNASKED: &str =
    "a second response that nobody asked for: the body may have been taken for a request";

impl Client<'_> {
    /// Reads up to the end of the last response that is due; a late client begins some time after the first byte.
    pub(super) async fn read(&mut self) {
        if !self.is_due() {
            return;
        }
        // Waits for the first byte; an error shows when the client reads.
        let _ = self.socket.ready(Interest::READABLE).await;
        self.first_byte.get_or_insert_with(|| self.begun.elapsed());
        if self.manner.model.reads_late() {
            self.delay(READ_DELAY).await;
        }
        self.begin_reading();
        while self.is_due() {
            if !self.read_once() {
                let _ = self.socket.ready(Interest::READABLE).await;
            }
        }
    }

    pub(super) fn begin_reading(&mut self) {
        if !self.reading {
            self.reading = true;
            self.here = self.responses.read_bytes() + self.socket.unread();
            if self.manner.model.reads_late() {
                self.socket.widen(WIDE_BUFFER);
            }
        }
    }

    /// One read; false if there was nothing to read.
    pub(super) fn read_once(&mut self) -> bool {
        match self.socket.try_read(&mut self.buf) {
            None => return false,
            Some(Ok(0)) if self.broken == Some(io::ErrorKind::ConnectionReset) => {
                // The failed write took the error out of the socket: this end of the stream is a reset, not a FIN.
                self.end = Some(ClientEnd::Reset);
            }
            Some(Ok(0)) => {
                self.responses.end();
                self.end = Some(ClientEnd::Fin);
            }
            Some(Ok(bytes)) => {
                self.first_byte.get_or_insert_with(|| self.begun.elapsed());
                let fed = self.responses.feed(&self.buf[..bytes], self.due);
                if let Err(text) = fed {
                    self.end = Some(ClientEnd::Bad(text));
                } else if fed.is_ok_and(|more| more > 0) && self.due < self.script.responses {
                    self.end = Some(ClientEnd::Bad(UNASKED.to_owned()));
                } else if self.responses.read_bytes() > MAX_BYTES {
                    self.end = Some(ClientEnd::Bad("a response of more than 64 MiB".to_owned()));
                }
            }
            Some(Err(error)) => {
                self.note(SocketCall::Receive, &error);
                self.end = Some(match error.kind() {
                    io::ErrorKind::TimedOut => ClientEnd::TimedOut,
                    _ => ClientEnd::Reset,
                });
            }
        }
        true
    }

    /// Reads what has arrived, without waiting.
    pub(super) fn read_arrived(&mut self) {
        self.begin_reading();
        while self.is_due() && self.read_once() {}
    }

    /// Looks whether the server has closed a kept connection between two requests, as it may (RFC 9112 §9.5): the next
    /// request is then not sent.
    pub(super) async fn look_between(&mut self) {
        if self.is_over() {
            return;
        }
        self.reading = false;
        pause(READ_DELAY).await;
        match self.socket.try_read(&mut self.buf[..1]) {
            None => {}
            Some(Ok(0)) => {
                self.end = Some(ClientEnd::Fin);
                self.closed_between = true;
            }
            Some(Ok(_)) => {
                self.end = Some(ClientEnd::Bad(UNASKED.to_owned()));
            }
            Some(Err(error)) => {
                self.note(SocketCall::Receive, &error);
                self.end = Some(ClientEnd::Reset);
                self.closed_between = true;
            }
        }
    }

    /// False if a final response or the end of the stream came in place of `100 Continue`.
    pub(super) async fn may_continue(&mut self, limit: Duration) -> bool {
        // Without an answer within the limit the body is sent all the same.
        timeout(limit, self.is_interim()).await.unwrap_or(true)
    }

    /// Waits for enough of a status line to tell an interim response, and leaves it unread.
    async fn is_interim(&self) -> bool {
        // Waits for the first byte; an error shows when the client looks.
        let _ = self.socket.ready(Interest::READABLE).await;
        let mut start = [0; 10];
        loop {
            match self.socket.peek(&mut start) {
                // The space before the status, and the status's first digit.
                Some(Ok(bytes)) if bytes == start.len() => return start.ends_with(b" 1"),
                // The read that follows reports the error.
                Some(Ok(0) | Err(_)) => return false,
                // The rest is on its way; the unread bytes keep the socket readable, so there is no event to wait for.
                Some(Ok(_)) | None => pause(LOOK_EVERY).await,
            }
        }
    }
}
