//! Plays the steps of a script on one connection: sends, waits, reads, and notes the first call that failed.

use std::io;
use std::time::Duration;

use rstlab_wire::{Pause, monotonic_now};
use tokio::io::Interest;
use tokio::time::{Instant, sleep, timeout};

use crate::judges::check::client_socket::ClientSocket;
use crate::judges::check::response::Responses;
use crate::judges::check::script::{Script, Step};
use crate::judges::check::trial::{FailedCall, Model, SocketCall};
use crate::shared::target::Address;

/// Size of the receive buffer before reading begins (`SO_RCVBUF`): the rest of a response is then still with the
/// server when a reset comes.
pub(in super::super) const RECEIVE_BUFFER: u32 = 4096;

/// Time from the first byte's arrival to the first read: the server has time to close.
pub(in super::super) const READ_DELAY: Duration = Duration::from_millis(4);

/// A client that can't send for so long begins to read: the server may wait for the client to read.
const STUCK: Duration = Duration::from_millis(20);

/// The longest time that a byte may wait here unseen while other processes use the processor.
const MAX_SEEN_LATE: Duration = Duration::from_millis(20);

/// The most bytes of one trial's responses.
pub(in super::super) const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// A pause that takes more than twice its time and so much more is late: this machine was busy, and the trial is not
/// the trial that was asked for.
const LATE: Duration = Duration::from_millis(2);

/// Bytes of one read, and of one write of a body.
const PIECE: usize = 64 * 1024;

/// The bytes of a body.
static FILL: [u8; PIECE] = [b'x'; PIECE];

/// How a connection is used, apart from the script.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Manner {
    pub(in super::super) model: Model,
    /// Limit of the whole exchange, the script's own pauses not counted.
    pub(in super::super) timeout: Duration,
}

impl Manner {
    /// The ordinary client, which reads at once.
    pub(in super::super) fn ordinary(timeout: Duration) -> Self {
        Self {
            model: Model::Ordinary,
            timeout,
        }
    }
}

/// Plays a script on one connection and judges how the trial ended.
#[derive(Debug)]
pub(in super::super) struct Client<'a> {
    pub(super) script: &'a Script,
    pub(super) manner: Manner,
    pub(super) socket: ClientSocket,
    pub(super) begun: Instant,
    /// The same moment on `CLOCK_MONOTONIC`.
    pub(super) made: Duration,
    pub(super) responses: Responses,
    /// Responses that the requests sent so far ask for.
    pub(super) due: usize,
    /// A pause took much longer than asked for.
    pub(super) is_late: bool,
    pub(super) buf: Vec<u8>,
    /// Bytes of the stream that had arrived, read or not, when reading of the last response began.
    pub(super) here: u64,
    pub(super) reading: bool,
    /// A write failed, and this client reads on.
    pub(super) broken: Option<io::ErrorKind>,
    pub(super) end: Option<ClientEnd>,
    /// The server closed a kept connection between two requests, which it may do.
    pub(super) closed_between: bool,
    pub(super) first_byte: Option<Duration>,
    pub(super) failure: Option<FailedCall>,
}

/// How the exchange ended, if not with its last response.
#[derive(Debug)]
pub(super) enum ClientEnd {
    Fin,
    Reset,
    GaveUp,
    TimedOut,
    Bad(String),
}

/// Why a connection can't be used any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Unusable {
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
    pub(in super::super) async fn connect(
        address: &Address,
        script: &'a Script,
        manner: Manner,
    ) -> io::Result<Self> {
        let (begun, made) = (Instant::now(), monotonic_now());
        let buffer = manner.model.reads_late().then_some(RECEIVE_BUFFER);
        let socket = timeout(manner.timeout, ClientSocket::connect(address, buffer)).await??;
        Ok(Self {
            script,
            manner,
            socket,
            begun,
            made,
            responses: Responses::new(script.head_only),
            due: if script.waits() { 1 } else { script.responses },
            is_late: false,
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

    /// The connection after its responses were read.
    ///
    /// # Errors
    /// The connection can't be used: the responses are not whole, or a reset came after them.
    pub(in super::super) fn into_socket(self) -> Result<ClientSocket, Unusable> {
        match (&self.end, self.is_whole()) {
            (_, true) if self.failure.is_none() => Ok(self.socket),
            (_, true) => Err(Unusable::Reset),
            (Some(ClientEnd::TimedOut), false) if self.first_byte.is_none() => {
                Err(Unusable::Silent)
            }
            (_, false) => Err(Unusable::Cut),
        }
    }

    /// A moment that is surely before the first byte of a response came: a busy machine sees the byte late.
    pub(in super::super) fn before_first_byte(&self) -> Instant {
        let first_byte = self.first_byte.unwrap_or_default();
        self.begun + first_byte.saturating_sub(MAX_SEEN_LATE)
    }

    pub(super) fn is_whole(&self) -> bool {
        self.responses.whole().len() >= self.script.responses
            || self.said_last()
            || self.closed_between
    }

    /// The server said with its last response that it closes the connection.
    pub(super) fn said_last(&self) -> bool {
        self.responses.whole().last().is_some_and(|one| one.is_last)
    }

    pub(super) fn is_over(&self) -> bool {
        self.end.is_some() || self.is_whole()
    }

    /// A response to what was sent so far is still to come.
    pub(super) fn is_due(&self) -> bool {
        !self.is_over() && self.responses.whole().len() < self.due
    }

    /// Plays the script and reads the responses to their end.
    pub(super) async fn steps(&mut self) {
        for step in &self.script.steps {
            if self.is_over() || self.broken.is_some() {
                break;
            }
            match step {
                Step::Send(bytes) => self.send(bytes).await,
                Step::Fill(bytes) => self.fill(*bytes).await,
                Step::Pause(time) => self.rest(*time).await,
                Step::HalfClose => {
                    if let Err(error) = self.socket.half_close() {
                        self.write_failed(SocketCall::Shutdown, &error);
                    }
                }
                Step::AwaitContinue(limit) => {
                    if !self.may_continue(*limit).await {
                        break;
                    }
                }
                Step::AwaitResponse => {
                    self.read().await;
                    self.look_between().await;
                    self.due = self.script.responses;
                }
            }
        }
        self.read().await;
    }

    /// Does nothing for a time; the ordinary client reads what comes meanwhile.
    async fn rest(&mut self, time: Duration) {
        if self.manner.model.reads_late() {
            return self.delay(time).await;
        }
        let begun = Instant::now();
        tokio::select! {
            () = pause(time) => {}
            () = self.read() => {}
        }
        if !self.is_over() {
            pause(time.saturating_sub(begun.elapsed())).await;
            self.note_late(time, begun);
        }
    }

    /// Does nothing for a time, and notes if it took much longer.
    pub(super) async fn delay(&mut self, time: Duration) {
        let begun = Instant::now();
        pause(time).await;
        self.note_late(time, begun);
    }

    fn note_late(&mut self, time: Duration, begun: Instant) {
        self.is_late |= begun.elapsed() > time * 2 + LATE;
    }

    async fn fill(&mut self, mut left: u64) {
        while left > 0 && !self.is_over() && self.broken.is_none() {
            let most = self
                .script
                .imitated
                .map_or(PIECE, |client| client.max_write.min(PIECE));
            let piece = usize::try_from(left).unwrap_or(most).min(most);
            self.send(&FILL[..piece]).await;
            left -= piece as u64;
            if left > 0 && !self.manner.model.reads_late() {
                self.read_arrived();
            }
        }
    }

    async fn send(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.is_over() {
            match self.socket.try_write(bytes) {
                Some(Ok(sent)) => {
                    bytes = &bytes[sent..];
                    if !bytes.is_empty() && !self.manner.model.reads_late() {
                        self.read_arrived();
                    }
                }
                Some(Err(error)) => return self.write_failed(SocketCall::Send, &error),
                None => self.room().await,
            }
        }
    }

    /// Waits until there is room to send; a client that can't send reads meanwhile (RFC 9112 §9.5).
    async fn room(&mut self) {
        if !self.is_due() {
            let _ = self.socket.ready(Interest::WRITABLE).await;
            return;
        }
        if !self.reading && self.manner.model.reads_late() {
            let writable = self.socket.ready(Interest::WRITABLE);
            if timeout(STUCK, writable).await.is_ok() {
                return;
            }
        }
        let either = Interest::READABLE | Interest::WRITABLE;
        if let Ok(ready) = self.socket.ready(either).await
            && !ready.is_writable()
        {
            self.begin_reading();
            self.read_once();
        }
    }

    fn write_failed(&mut self, call: SocketCall, error: &io::Error) {
        self.note(call, error);
        let stops = self.script.imitated.is_some_and(|client| client.stops);
        match self.manner.model {
            Model::Ordinary | Model::ReadsOn if !stops => self.broken = Some(error.kind()),
            _ => self.end = Some(ClientEnd::GaveUp),
        }
    }

    pub(super) fn note(&mut self, call: SocketCall, error: &io::Error) {
        self.failure.get_or_insert(FailedCall {
            call,
            errno: error.raw_os_error().unwrap_or(0),
            after: self.begun.elapsed(),
        });
    }
}

pub(super) async fn pause(time: Duration) {
    match Pause::start(time) {
        Ok(pause) => pause.await,
        // No file descriptor is left for an exact pause.
        Err(_) => sleep(time).await,
    }
}
