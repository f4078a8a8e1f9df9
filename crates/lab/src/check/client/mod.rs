//! A client whose every system call is chosen: it plays a script and says how it ended.

mod judge;
mod watch;

use std::io;
use std::time::Duration;

use rstlab_wire::{Pause, monotonic_now};
use tokio::io::Interest;
use tokio::time::{Instant, sleep, timeout};

use super::link::Link;
use super::outcome::{Failure, Model};
use super::response::Responses;
use super::script::{Script, Step};
use super::target::Address;

/// What the kernel is asked to hold for us before reading begins (`SO_RCVBUF`): the rest of a response then lies
/// with the server when a reset comes.
pub(super) const RECEIVE_BUFFER: u32 = 4096;

/// From the first byte's arrival to the first read: the server has time to close.
pub(super) const READ_DELAY: Duration = Duration::from_millis(4);

/// Once reading has begun it shall be quick.
const WIDE_BUFFER: usize = 1024 * 1024;

/// A client that can't send for so long begins to read: the server may wait for it to.
const STUCK: Duration = Duration::from_millis(20);

/// Between two looks at the beginning of a response that has not come yet.
const LOOK: Duration = Duration::from_millis(1);

/// Most that a byte waits here until we see it, while others use the processor.
const SEEN_LATE: Duration = Duration::from_millis(20);

/// After a response's end, for the FIN or reset that mostly comes with it.
const AFTER_END: Duration = Duration::from_millis(3);

/// Most bytes of one trial's responses.
pub(super) const MOST_BYTES: u64 = 64 * 1024 * 1024;

/// What follows a response before the next request was sent. It could also be the same one again.
const UNASKED: &str =
    "a second response that nobody asked for: the body may have been taken for a request";

/// Bytes of one read, and of one write of a body.
const PIECE: usize = 64 * 1024;

/// What a body is made of.
static FILL: [u8; PIECE] = [b'x'; PIECE];

/// How a connection is used, apart from the script.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manner {
    pub(super) model: Model,
    /// Small buffer and late reading, or a usual client's.
    pub(super) late: bool,
    /// For the whole of it, the script's own pauses not counted.
    pub(super) timeout: Duration,
}

/// Plays a script on one connection and judges what came of it.
#[derive(Debug)]
pub(super) struct Client<'a> {
    script: &'a Script,
    manner: Manner,
    link: Link,
    begun: Instant,
    /// The same moment on `CLOCK_MONOTONIC`.
    made: Duration,
    responses: Responses,
    buf: Vec<u8>,
    /// Bytes of the stream that were here, read or not, when reading of the last response began.
    here: u64,
    reading: bool,
    /// A write failed, and this client reads on.
    broken: Option<io::ErrorKind>,
    end: Option<End>,
    /// The server closed a kept connection between two requests: it may.
    closed_between: bool,
    first_byte: Option<Duration>,
    failure: Option<Failure>,
}

/// What ended the exchange, if not its last response.
#[derive(Debug)]
enum End {
    Fin,
    Reset,
    GaveUp,
    TimedOut,
    Bad(String),
}

/// Why a connection is no good for going on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// No byte of a response came in time.
    Silent,
    /// A response did not come to its end.
    Cut,
    /// A reset came after the responses.
    Reset,
}

impl<'a> Client<'a> {
    /// Connects.
    ///
    /// # Errors
    /// As `connect(2)`, or `TimedOut`.
    pub(super) async fn connect(
        address: &Address,
        script: &'a Script,
        manner: Manner,
    ) -> io::Result<Self> {
        let (begun, made) = (Instant::now(), monotonic_now());
        let buffer = manner.late.then_some(RECEIVE_BUFFER);
        let link = timeout(manner.timeout, Link::connect(address, buffer)).await??;
        Ok(Self {
            script,
            manner,
            link,
            begun,
            made,
            responses: Responses::new(script.head_only),
            buf: vec![0; PIECE],
            here: 0,
            reading: false,
            broken: None,
            end: None,
            closed_between: false,
            first_byte: None,
            failure: None,
        })
    }

    /// Plays the script and reads the responses to their end.
    pub(super) async fn play(&mut self) {
        let limit = self.manner.timeout + self.script.pauses();
        if timeout(limit, self.steps()).await.is_err() {
            self.end = Some(End::TimedOut);
        }
        if self.is_whole() {
            self.watch(AFTER_END).await;
        }
    }

    /// The connection, its responses read.
    ///
    /// # Errors
    /// It can't be used: the responses are not whole, or a reset came after them.
    pub(super) fn into_link(self) -> Result<Link, Left> {
        match (&self.end, self.is_whole()) {
            (_, true) if self.failure.is_none() => Ok(self.link),
            (_, true) => Err(Left::Reset),
            (Some(End::TimedOut), false) if self.first_byte.is_none() => Err(Left::Silent),
            (_, false) => Err(Left::Cut),
        }
    }

    /// A moment before the first byte of a response came: on a busy machine it is seen late.
    pub(super) fn before_first_byte(&self) -> Instant {
        let first_byte = self.first_byte.unwrap_or_default();
        self.begun + first_byte.saturating_sub(SEEN_LATE)
    }

    fn is_over(&self) -> bool {
        self.end.is_some() || self.is_whole()
    }

    async fn steps(&mut self) {
        for step in &self.script.steps {
            if self.is_over() || self.broken.is_some() {
                break;
            }
            match step {
                Step::Send(bytes) => self.send(bytes).await,
                Step::Fill(bytes) => self.fill(*bytes).await,
                Step::Pause(time) => pause(*time).await,
                Step::HalfClose => {
                    if let Err(error) = self.link.half_close() {
                        self.write_failed("shutdown()", &error);
                    }
                }
                Step::AwaitContinue(limit) => {
                    if !self.may_continue(*limit).await {
                        break;
                    }
                }
                Step::AwaitResponse => {
                    self.read(self.responses.whole().len() + 1).await;
                    self.look_between().await;
                }
            }
        }
        self.read(self.script.responses).await;
    }

    async fn fill(&mut self, mut left: u64) {
        while left > 0 && !self.is_over() && self.broken.is_none() {
            let piece = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            self.send(&FILL[..piece]).await;
            left -= piece as u64;
        }
    }

    async fn send(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.is_over() {
            match self.link.try_write(bytes) {
                Some(Ok(sent)) => bytes = &bytes[sent..],
                Some(Err(error)) => return self.write_failed("send()", &error),
                None => self.room().await,
            }
        }
    }

    /// Waits until there is room to send; a client that is stuck reads meanwhile (RFC 9112 §9.5).
    async fn room(&mut self) {
        if !self.reading {
            let writable = self.link.ready(Interest::WRITABLE);
            if timeout(STUCK, writable).await.is_ok() {
                return;
            }
        }
        let either = Interest::READABLE | Interest::WRITABLE;
        if let Ok(ready) = self.link.ready(either).await
            && !ready.is_writable()
        {
            self.begin_reading();
            self.read_once(self.script.responses);
        }
    }

    fn write_failed(&mut self, call: &'static str, error: &io::Error) {
        self.note(call, error);
        match self.manner.model {
            Model::ReadsOn => self.broken = Some(error.kind()),
            Model::StopsAtWriteError => self.end = Some(End::GaveUp),
        }
    }

    /// False if a final response came in place of `100 Continue`, or the end of the stream.
    async fn may_continue(&mut self, limit: Duration) -> bool {
        // Without an answer within the limit the body is sent all the same.
        timeout(limit, self.is_interim()).await.unwrap_or(true)
    }

    /// Waits for as much of a status line as tells an interim response, and leaves it unread.
    async fn is_interim(&self) -> bool {
        // Waits for the first byte; an error shows in the looking.
        let _ = self.link.ready(Interest::READABLE).await;
        let mut start = [0; 10];
        loop {
            match self.link.peek(&mut start) {
                // The blank before the status, and its first digit.
                Some(Ok(bytes)) if bytes == start.len() => return start.ends_with(b" 1"),
                // The reading that follows tells why.
                Some(Ok(0) | Err(_)) => return false,
                // The rest is on its way: what lies unread is no event for the reactor to wait for.
                Some(Ok(_)) | None => pause(LOOK).await,
            }
        }
    }

    /// Reads up to the end of response number `most`, late.
    async fn read(&mut self, most: usize) {
        if self.is_over() {
            return;
        }
        // Waits for the first byte; an error shows in the reading.
        let _ = self.link.ready(Interest::READABLE).await;
        self.first_byte.get_or_insert_with(|| self.begun.elapsed());
        if self.manner.late {
            pause(READ_DELAY).await;
        }
        self.begin_reading();
        while !self.is_over() && self.responses.whole().len() < most {
            if !self.read_once(most) {
                let _ = self.link.ready(Interest::READABLE).await;
            }
        }
    }

    fn begin_reading(&mut self) {
        if !self.reading {
            self.reading = true;
            self.here = self.responses.read_bytes() + self.link.unread();
            self.link.widen(WIDE_BUFFER);
        }
    }

    /// One read; false if there was nothing to read.
    fn read_once(&mut self, most: usize) -> bool {
        match self.link.try_read(&mut self.buf) {
            None => return false,
            Some(Ok(0)) if self.broken == Some(io::ErrorKind::ConnectionReset) => {
                // The failed write took the reset out of the socket: this end is not a FIN.
                self.end = Some(End::Reset);
            }
            Some(Ok(0)) => {
                self.responses.end();
                self.end = Some(End::Fin);
            }
            Some(Ok(bytes)) => {
                self.first_byte.get_or_insert_with(|| self.begun.elapsed());
                let fed = self.responses.feed(&self.buf[..bytes], most);
                if let Err(text) = fed {
                    self.end = Some(End::Bad(text));
                } else if fed.is_ok_and(|more| more > 0) && most < self.script.responses {
                    self.end = Some(End::Bad(UNASKED.to_owned()));
                } else if self.responses.read_bytes() > MOST_BYTES {
                    self.end = Some(End::Bad("a response of more than 64 MiB".to_owned()));
                }
            }
            Some(Err(error)) => {
                self.note("recv()", &error);
                self.end = Some(match error.kind() {
                    io::ErrorKind::TimedOut => End::TimedOut,
                    _ => End::Reset,
                });
            }
        }
        true
    }

    fn note(&mut self, call: &'static str, error: &io::Error) {
        self.failure.get_or_insert(Failure {
            call,
            errno: error.raw_os_error().unwrap_or(0),
            after: self.begun.elapsed(),
        });
    }
}

async fn pause(time: Duration) {
    match Pause::start(time) {
        Ok(pause) => pause.await,
        // No descriptor is left for an exact one.
        Err(_) => sleep(time).await,
    }
}
