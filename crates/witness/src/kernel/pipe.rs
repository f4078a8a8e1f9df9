//! The trace pipe: asks the kernel for events, and reads their lines.

use std::fs::File;
use std::io;

use tokio::net::unix::pipe::Receiver;

use super::format::Format;
use super::line::{ParsedLine, TraceLine};
use super::tracefs::Instance;
use crate::unavailable::Unavailable;

/// A RST is sent.
const RESET: &str = "events/tcp/tcp_send_reset";
/// A connection's state changes.
const STATE: &str = "events/sock/inet_sock_set_state";
/// A thread gets a signal.
const SIGNAL: &str = "events/signal/signal_deliver";

/// The kernel's buffer for each processor, and for all of them, in KiB. An event takes about 100 bytes: at 2,000
/// resets a second on one processor that is ten seconds, two on a very large machine.
const BUFFER_KIB: usize = 2048;
const MIN_BUFFER_KIB: usize = 512;
const ALL_BUFFERS_KIB: usize = 64 * 1024;

/// Most bytes that one read takes.
const READ_BYTES: usize = 64 * 1024;

/// Longest line that is read; the kernel's own limit is a page or two (`trace_seq`).
const MAX_LINE_BYTES: usize = 16 * 1024;

/// Options that change the shape of a line are undone: a new instance inherits them from the main one.
const OPTIONS: [&str; 11] = [
    "context-info",
    "irq-info",
    "record-tgid",
    "noraw",
    "nohex",
    "nobin",
    "noverbose",
    "nolatency-format",
    "nofields",
    "nostacktrace",
    "nouserstacktrace",
];

/// Which events the kernel is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope<'a> {
    /// Every RST from or to one of these ports, or every RST if there are none; and who is killed.
    Resets(&'a [u16]),
    /// The same, and which side of a connection from or to these ports closes it.
    Closes(&'a [u16]),
}

/// The kernel takes a filter of no more than a page: with more ports than this, the closes of all ports are asked for.
const MAX_FILTER_PORTS: usize = 64;

impl Scope<'_> {
    /// The ports that are asked for; an empty list means all.
    pub(super) fn ports(self) -> Vec<u16> {
        let (Scope::Resets(ports) | Scope::Closes(ports)) = self;
        ports.to_vec()
    }

    /// The events, each with a filter (`Documentation/trace/events.rst`).
    fn events(self) -> Vec<(&'static str, Option<String>)> {
        let mut events = vec![(RESET, None), (SIGNAL, Some("sig == 9".to_owned()))];
        if let Scope::Closes(ports) = self {
            // The numbers are those of include/net/tcp_states.h: from ESTABLISHED or CLOSE-WAIT to FIN-WAIT-1,
            // LAST-ACK or CLOSED. Protocol 6 is TCP.
            let mut closes = "protocol == 6 && (oldstate == 1 || oldstate == 8) \
                              && (newstate == 4 || newstate == 7 || newstate == 9)"
                .to_owned();
            if (1..=MAX_FILTER_PORTS).contains(&ports.len()) {
                let ports = ports.iter();
                let ports: Vec<_> = ports
                    .map(|port| format!("sport == {port} || dport == {port}"))
                    .collect();
                closes = format!("({}) && {closes}", ports.join(" || "));
            }
            events.push((STATE, Some(closes)));
        }
        events
    }
}

/// The open trace pipe, in a trace instance of its own.
#[derive(Debug)]
pub(super) struct TracePipe {
    events: Vec<&'static str>,
    // Dropped before the instance, which cannot be removed while the pipe is open.
    pipe: File,
    /// The same, from the first wait on: each event wakes a runtime that watches the pipe, also while nobody waits.
    watched: Option<Receiver>,
    pub(super) instance: Instance,
    pub(super) format: Format,
    lines: LineReader,
    buf: Box<[u8]>,
}

impl TracePipe {
    /// Starts to listen.
    ///
    /// # Errors
    /// tracefs is not mounted, this is not root, or the kernel has no such tracepoint.
    pub(super) fn open(scope: Scope<'_>) -> Result<Self, Unavailable> {
        let instance = Instance::create()?;
        let format = Format::parse(&instance.read(&format!("{RESET}/format"))?);
        instance.write("trace_clock", "mono")?;
        let processors =
            std::fs::read_dir(instance.path().join("per_cpu")).map_or(1, Iterator::count);
        instance.write("buffer_size_kb", &buffer_kib(processors).to_string())?;
        for option in OPTIONS {
            // An option that this kernel does not have is not set either.
            let _ = instance.write("trace_options", option);
        }
        // Since Linux 5.0 a poll waits until the buffer is half full, unless this says otherwise.
        let _ = instance.write("buffer_percent", "0");
        let pipe = instance.open("trace_pipe")?;
        let mut events = Vec::new();
        for (event, filter) in scope.events() {
            if let Some(filter) = filter {
                instance.write(&format!("{event}/filter"), &filter)?;
            }
            instance.write(&format!("{event}/enable"), "1")?;
            events.push(event);
        }
        Ok(Self {
            events,
            pipe,
            watched: None,
            instance,
            format,
            lines: LineReader::default(),
            buf: vec![0; READ_BYTES].into(),
        })
    }

    /// Waits for resets and adds them to `lines`: at least one read's worth, which may end within a line.
    /// Nothing is lost if the future is dropped. Call it inside a tokio runtime with IO.
    ///
    /// # Errors
    /// The pipe cannot be read, or somebody turned this instance off.
    pub(super) async fn read(&mut self, lines: &mut Vec<ParsedLine>) -> io::Result<()> {
        let pipe = match &mut self.watched {
            Some(pipe) => pipe,
            // tokio's AsyncFd is unsafe to make, its pipe is not: it only reads, and a trace pipe can be polled too.
            None => self
                .watched
                .insert(Receiver::from_file_unchecked(self.pipe.try_clone()?)?),
        };
        loop {
            pipe.readable().await?;
            // Not `read()`: it takes a short read for the end of what is there, and a trace pipe gives a page at
            // a time.
            match pipe.try_read(&mut self.buf) {
                Ok(0) => return Err(io::Error::other("somebody turned the trace instance off")),
                Ok(bytes) => {
                    self.lines.take(&self.buf[..bytes], lines);
                    return Ok(());
                }
                Err(error) if is_temporary(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Adds everything that has happened until now to `lines`, without waiting.
    ///
    /// # Errors
    /// The pipe cannot be read.
    pub(super) fn drain(&mut self, lines: &mut Vec<ParsedLine>) -> io::Result<()> {
        loop {
            // Not through tokio, which may not know yet that the pipe can be read.
            match rustix::io::read(&self.pipe, &mut *self.buf).map_err(io::Error::from) {
                Ok(0) => return Ok(()),
                Ok(bytes) => self.lines.take(&self.buf[..bytes], lines),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if is_temporary(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Stops listening and adds what the kernel still holds to `lines`.
    ///
    /// # Errors
    /// An event cannot be switched off, or the pipe cannot be read.
    pub(super) fn finish(mut self, lines: &mut Vec<ParsedLine>) -> io::Result<()> {
        for event in &self.events {
            self.instance
                .write(&format!("{event}/enable"), "0")
                .map_err(io::Error::other)?;
        }
        self.drain(lines)
    }
}

fn buffer_kib(processors: usize) -> usize {
    (ALL_BUFFERS_KIB / processors.max(1)).clamp(MIN_BUFFER_KIB, BUFFER_KIB)
}

fn is_temporary(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// Puts lines together from the pieces that were read.
#[derive(Debug, Default)]
pub(super) struct LineReader {
    begun: Vec<u8>,
}

impl LineReader {
    pub(super) fn take(&mut self, mut bytes: &[u8], lines: &mut Vec<ParsedLine>) {
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            self.begun.extend_from_slice(&bytes[..end]);
            bytes = &bytes[end + 1..];
            lines.push(self.line());
        }
        self.begun.extend_from_slice(bytes);
        if self.begun.len() > MAX_LINE_BYTES {
            lines.push(self.line());
        }
    }

    fn line(&mut self) -> ParsedLine {
        let line = TraceLine::parse(&String::from_utf8_lossy(&self.begun));
        self.begun.clear();
        line
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LOST: &str = "CPU:1 [LOST 17 EVENTS]\n";

    #[test]
    fn buffers_are_bounded_on_large_machines() {
        assert_eq!(
            [0, 1, 32, 64, 1024].map(buffer_kib),
            [2048, 2048, 2048, 1024, 512]
        );
    }

    #[test]
    fn a_line_without_an_end_is_cut() {
        let mut lines = Vec::new();
        let mut reader = LineReader::default();
        for _ in 0..100 {
            reader.take(&[b'x'; 4096], &mut lines);
            assert!(reader.begun.len() <= MAX_LINE_BYTES);
        }
        assert_eq!(lines.len(), 20);
        assert!(lines.iter().all(Result::is_err));
    }

    proptest! {
        #[test]
        fn a_line_that_is_read_in_pieces_is_put_together(cuts in prop::collection::vec(1_usize..30, 0..20)) {
            let text = LOST.repeat(7);
            let mut rest = text.as_bytes();
            let (mut reader, mut lines) = (LineReader::default(), Vec::new());
            for cut in cuts {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                reader.take(piece, &mut lines);
                rest = after;
            }
            reader.take(rest, &mut lines);
            let lost = Ok(TraceLine::Lost { cpu: 1, events: Some(17) });
            prop_assert_eq!(lines, vec![lost; 7]);
        }

        #[test]
        fn no_bytes_make_the_reader_of_lines_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            LineReader::default().take(&bytes, &mut Vec::new());
        }
    }
}
