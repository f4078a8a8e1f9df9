use std::io;
use std::path::Path;

use tokio::net::unix::pipe::Receiver;

use super::tracefs::Instance;
use crate::{BadLine, Format, Line, Unavailable};

/// A RST is sent.
const RESET: &str = "events/tcp/tcp_send_reset";
/// A connection's state changes.
const STATE: &str = "events/sock/inet_sock_set_state";
/// A thread gets a signal.
const SIGNAL: &str = "events/signal/signal_deliver";

/// The kernel's buffer for each processor, and for all of them, in KiB. An event takes about 100 bytes: at 2,000
/// resets a second on one processor that is ten seconds, two on a very large machine.
const BUFFER_KIB: usize = 2048;
const LEAST_BUFFER_KIB: usize = 512;
const ALL_BUFFERS_KIB: usize = 64 * 1024;

/// Most bytes that one read takes.
const READ_BYTES: usize = 64 * 1024;

/// Longest line; the kernel's own limit is a page or two (`trace_seq`).
const MOST_LINE_BYTES: usize = 16 * 1024;

/// A new instance inherits how others have set up the main one: undo what changes the shape of a line.
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

/// What is asked of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Every RST, and who is killed.
    Resets,
    /// Those; and which side of a connection to or from this port closes it.
    Connections {
        /// The server's port.
        port: u16,
    },
}

impl Scope {
    /// The events, each with a filter (`Documentation/trace/events.rst`).
    fn events(self) -> Vec<(&'static str, Option<String>)> {
        let mut events = vec![(RESET, None), (SIGNAL, Some("sig == 9".to_owned()))];
        if let Scope::Connections { port } = self {
            // The numbers are those of include/net/tcp_states.h: from ESTABLISHED or CLOSE-WAIT to FIN-WAIT-1,
            // LAST-ACK or CLOSED. Protocol 6 is TCP.
            let close = format!(
                "protocol == 6 && (sport == {port} || dport == {port}) && (oldstate == 1 || oldstate == 8) \
                 && (newstate == 4 || newstate == 7 || newstate == 9)"
            );
            events.push((STATE, Some(close)));
        }
        events
    }
}

/// The kernel's word on every RST that this machine sends, in all of its network namespaces.
///
/// It stops and its trace instance is removed when it is dropped, also by a panic. A killed process leaves the
/// instance behind; the next start removes it.
#[derive(Debug)]
pub struct Kernel {
    scope: Scope,
    // Before the instance: it cannot be removed while this is open.
    pipe: Receiver,
    instance: Instance,
    format: Format,
    lines: Lines,
    buf: Box<[u8]>,
}

impl Kernel {
    /// Starts to listen; call it inside a tokio runtime with IO.
    ///
    /// # Errors
    /// tracefs is not mounted, this is not root, or the kernel has no such tracepoint.
    pub fn open(scope: Scope) -> Result<Self, Unavailable> {
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
        // Else a poll waits until the buffer is half full (since Linux 5.0; before that it never did).
        let _ = instance.write("buffer_percent", "0");
        let path = instance.path().join("trace_pipe");
        let pipe = instance.open("trace_pipe")?;
        // tokio's AsyncFd is unsafe to make, its pipe is not: it only reads, and a trace pipe can be polled too.
        let pipe = Receiver::from_file_unchecked(pipe).map_err(|source| Unavailable::Failed {
            doing: "poll",
            path,
            source,
        })?;
        for (event, filter) in scope.events() {
            if let Some(filter) = filter {
                instance.write(&format!("{event}/filter"), &filter)?;
            }
            instance.write(&format!("{event}/enable"), "1")?;
        }
        Ok(Self {
            scope,
            pipe,
            instance,
            format,
            lines: Lines::default(),
            buf: vec![0; READ_BYTES].into(),
        })
    }

    /// What this kernel can say.
    pub fn format(&self) -> &Format {
        &self.format
    }

    /// The trace instance, for as long as this lives.
    pub fn instance(&self) -> &Path {
        self.instance.path()
    }

    /// Waits for resets and adds them to `lines`: at least one read's worth, which may end within a line.
    /// Nothing is lost if the future is dropped.
    ///
    /// # Errors
    /// The pipe cannot be read, or somebody turned this instance off.
    pub async fn read(&mut self, lines: &mut Vec<Result<Line, BadLine>>) -> io::Result<()> {
        loop {
            self.pipe.readable().await?;
            // Not `read()`: it takes a short read for the end of what is there, and a trace pipe gives a page at
            // a time.
            match self.pipe.try_read(&mut self.buf) {
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
    pub fn drain(&mut self, lines: &mut Vec<Result<Line, BadLine>>) -> io::Result<()> {
        loop {
            // Without asking tokio, who may not have heard yet.
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
    pub fn finish(mut self, lines: &mut Vec<Result<Line, BadLine>>) -> io::Result<()> {
        for (event, _) in self.scope.events() {
            self.instance
                .write(&format!("{event}/enable"), "0")
                .map_err(io::Error::other)?;
        }
        self.drain(lines)
    }
}

fn buffer_kib(processors: usize) -> usize {
    (ALL_BUFFERS_KIB / processors.max(1)).clamp(LEAST_BUFFER_KIB, BUFFER_KIB)
}

fn is_temporary(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// Puts lines together from what was read.
#[derive(Debug, Default)]
struct Lines {
    begun: Vec<u8>,
}

impl Lines {
    fn take(&mut self, mut bytes: &[u8], lines: &mut Vec<Result<Line, BadLine>>) {
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            self.begun.extend_from_slice(&bytes[..end]);
            bytes = &bytes[end + 1..];
            lines.push(self.line());
        }
        self.begun.extend_from_slice(bytes);
        if self.begun.len() > MOST_LINE_BYTES {
            lines.push(self.line());
        }
    }

    fn line(&mut self) -> Result<Line, BadLine> {
        let line = Line::parse(&String::from_utf8_lossy(&self.begun));
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
    fn a_line_without_an_end_does_not_grow_for_ever() {
        let mut lines = Vec::new();
        let mut reader = Lines::default();
        for _ in 0..100 {
            reader.take(&[b'x'; 4096], &mut lines);
            assert!(reader.begun.len() <= MOST_LINE_BYTES);
        }
        assert_eq!(lines.len(), 20);
        assert!(lines.iter().all(Result::is_err));
    }

    proptest! {
        #[test]
        fn lines_come_whole_however_they_are_read(cuts in prop::collection::vec(1_usize..30, 0..20)) {
            let text = LOST.repeat(7);
            let mut rest = text.as_bytes();
            let (mut reader, mut lines) = (Lines::default(), Vec::new());
            for cut in cuts {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                reader.take(piece, &mut lines);
                rest = after;
            }
            reader.take(rest, &mut lines);
            let lost = Ok(Line::Lost { cpu: 1, events: Some(17) });
            prop_assert_eq!(lines, vec![lost; 7]);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            Lines::default().take(&bytes, &mut Vec::new());
        }
    }
}
