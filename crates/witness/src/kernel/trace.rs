//! The kernel's trace as a stream: each RST with its place, each close, and what is missing.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use rstlab_wire::monotonic_now;

use super::event::{CloseEvent, ResetEvent};
use super::format::Format;
use super::killed::Killed;
use super::ledger::{Judged, Ledger};
use super::line::{BadLine, ParsedLine, TraceLine};
use super::pipe::{Scope, TracePipe};
use crate::evidence::{Evidence, KernelWord, Place};
use crate::unavailable::Unavailable;

/// An event of the kernel's trace, or a gap in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TraceEvent {
    /// A RST was sent.
    Reset(TracedReset),
    /// A side of a connection was closed by a call of its owner.
    Close(TracedClose),
    /// The kernel wrote faster than we read, and dropped events.
    Lost {
        /// Of which processor.
        cpu: u32,
        /// How many; `None` where the kernel does not know.
        events: Option<u64>,
    },
    /// A line that could not be read.
    Bad(BadLine),
}

/// A RST that was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TracedReset {
    /// The RST.
    pub event: ResetEvent,
    /// Its place among those of its connection.
    pub place: Place,
    /// If a killed process closed the connection: when it was killed, on `CLOCK_MONOTONIC`.
    pub killed: Option<Duration>,
}

impl TracedReset {
    /// The RST as evidence, for a judgement in which the sender of the RST is the server.
    pub fn evidence(&self) -> Evidence {
        let word = KernelWord {
            reset: Some(self.event.evidence()),
            killed: self.killed.is_some(),
            ..KernelWord::default()
        };
        Evidence {
            kernel: Some(word),
            ..Evidence::default()
        }
    }
}

/// A side of a connection that was closed, or shut down for writing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TracedClose {
    /// The close.
    pub event: CloseEvent,
    /// If a killed thread closed: when it was killed, on `CLOCK_MONOTONIC`.
    pub killed: Option<Duration>,
}

/// Every RST that this machine sends, in all of its network namespaces, as the kernel traces it.
///
/// The trace stops and its trace instance is removed when it is dropped, also by a panic. A killed process leaves the
/// instance behind; the next start removes it.
#[derive(Debug)]
pub struct KernelTrace {
    pipe: TracePipe,
    lines: Vec<ParsedLine>,
    reader: TraceReader,
}

impl KernelTrace {
    /// Starts to listen.
    ///
    /// # Errors
    /// tracefs is not mounted, this is not root, or the kernel has no such tracepoint.
    pub fn open(scope: Scope<'_>) -> Result<Self, Unavailable> {
        Ok(Self {
            pipe: TracePipe::open(scope)?,
            lines: Vec::new(),
            reader: TraceReader {
                ports: scope.ports(),
                ..TraceReader::default()
            },
        })
    }

    /// Which reasons this kernel can give.
    pub fn format(&self) -> &Format {
        &self.pipe.format
    }

    /// The trace instance, for as long as this lives.
    pub fn instance(&self) -> &Path {
        self.pipe.instance.path()
    }

    /// Waits until something has happened, and adds the events that can be told now, perhaps none. Nothing is lost if
    /// the future is dropped. Call it inside a tokio runtime with IO.
    ///
    /// # Errors
    /// The pipe cannot be read, or somebody turned this instance off.
    pub async fn next(&mut self, events: &mut Vec<TraceEvent>) -> io::Result<()> {
        tokio::select! {
            biased;
            read = self.pipe.read(&mut self.lines) => read?,
            () = self.reader.ledger.until_due() => {}
        }
        self.reader.take(&mut self.lines, monotonic_now(), events);
        Ok(())
    }

    /// Adds what has happened until now, without waiting. A RST that was sent for want of a socket may be added by a
    /// later call.
    ///
    /// # Errors
    /// The pipe cannot be read.
    pub fn drain(&mut self, events: &mut Vec<TraceEvent>) -> io::Result<()> {
        let read = self.pipe.drain(&mut self.lines);
        self.reader.take(&mut self.lines, monotonic_now(), events);
        read
    }

    /// Stops listening and adds what has happened until now.
    ///
    /// # Errors
    /// An event cannot be switched off, or the pipe cannot be read; what was read is added all the same.
    pub fn finish(self, events: &mut Vec<TraceEvent>) -> io::Result<()> {
        let Self {
            pipe,
            mut lines,
            mut reader,
        } = self;
        let read = pipe.finish(&mut lines);
        reader.take(&mut lines, Duration::MAX, events);
        read
    }
}

/// Turns lines into events.
#[derive(Debug, Default)]
struct TraceReader {
    /// If empty, all ports.
    ports: Vec<u16>,
    ledger: Ledger,
    killed: Killed,
}

impl TraceReader {
    /// Adds what these lines tell, and the RSTs that were held back and are due at `now`.
    fn take(&mut self, lines: &mut Vec<ParsedLine>, now: Duration, events: &mut Vec<TraceEvent>) {
        let (mut judged, mut closes) = (Vec::<Judged>::new(), Vec::new());
        for line in lines.drain(..) {
            match line {
                Ok(TraceLine::Reset(event)) if self.is_watched(&event) => {
                    self.ledger.see(event, &mut judged);
                }
                Ok(TraceLine::Reset(_)) => {}
                // A RST that arrives takes its receiver out of ESTABLISHED, too: that is no close.
                Ok(TraceLine::Close(event)) if event.stamp.in_interrupt => {}
                Ok(TraceLine::Close(event)) => closes.push(event),
                Ok(TraceLine::Kill(event)) => self.killed.see(&event),
                Ok(TraceLine::Lost { cpu, events: count }) => {
                    events.push(TraceEvent::Lost { cpu, events: count });
                }
                Err(bad) => events.push(TraceEvent::Bad(bad)),
            }
        }
        self.ledger.due(now, &mut judged);
        // After all lines, because the line of a kill may come after what the killed thread did on another processor.
        events.extend(closes.into_iter().map(|event| {
            let killed = self.killed.closed(&event);
            TraceEvent::Close(TracedClose { event, killed })
        }));
        events.extend(judged.into_iter().map(|(event, place)| {
            let killed = self.killed.reset(&event);
            TraceEvent::Reset(TracedReset {
                event,
                place,
                killed,
            })
        }));
    }

    fn is_watched(&self, event: &ResetEvent) -> bool {
        let ends = [Some(event.source), event.destination];
        let mut ports = ends.iter().flatten().map(SocketAddr::port);
        self.ports.is_empty() || ports.any(|port| self.ports.contains(&port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::Reason;

    fn told(ports: &[u16], lines: &[String]) -> Vec<TraceEvent> {
        let mut events = Vec::new();
        let mut lines = lines.iter().map(|line| TraceLine::parse(line)).collect();
        let mut reader = TraceReader {
            ports: ports.to_vec(),
            ..TraceReader::default()
        };
        reader.take(&mut lines, Duration::MAX, &mut events);
        events
    }

    fn resets(ports: &[u16], lines: &[String]) -> Vec<TracedReset> {
        let events = told(ports, lines).into_iter();
        let resets = events.filter_map(|event| match event {
            TraceEvent::Reset(reset) => Some(reset),
            _ => None,
        });
        resets.collect()
    }

    /// A RST from port 80 that answers a segment.
    fn answer(micros: u16, client: u16, reason: &str) -> String {
        format!(
            "  server-1  ( 1) [000] ..s2.  10.{micros:06}: tcp_send_reset: skbaddr=01 skaddr=01 \
             src=127.0.0.1:80 dest=127.0.0.1:{client} state=TCP_CLOSE reason={reason}"
        )
    }

    #[test]
    fn only_resets_of_the_ports_asked_for_are_told() {
        let lines: Vec<_> = (0..10)
            .map(|n| answer(n, 4000 + n, "TCP_ABORT_ON_DATA"))
            .collect();
        for (ports, count) in [(&[4001, 4003][..], 2), (&[80], 10), (&[], 10)] {
            assert_eq!(resets(ports, &lines).len(), count);
        }
    }

    #[test]
    fn lost_events_and_bad_lines_are_told() {
        let lines = ["CPU:0 [LOST 7 EVENTS]", "CPU:1 [LOST EVENTS]", "x"];
        let lost = |cpu, events| TraceEvent::Lost { cpu, events };
        let told = told(&[], &lines.map(str::to_owned));
        assert_eq!(told[..2], [lost(0, Some(7)), lost(1, None)]);
        assert!(matches!(told[2], TraceEvent::Bad(_)));
    }

    #[test]
    fn the_second_reset_of_a_connection_is_told_as_an_echo() {
        let lines = [
            answer(0, 4000, "TCP_ABORT_ON_DATA"),
            answer(1, 4000, "NO_SOCKET"),
        ];
        let places: Vec<_> = resets(&[], &lines).iter().map(|it| it.place).collect();
        assert_eq!(places, [Place::First, Place::Echo]);
    }

    /// A thread with the number of its client's port is killed.
    fn kill(pid: u16) -> String {
        format!("  s-{pid}  ( {pid}) [000] d..1. 10.400000: signal_deliver: sig=9 errno=0")
    }

    /// A thread with the number of its client's port closes the server's side.
    fn close(pid: u16, micros: u32) -> String {
        format!(
            "  s-{pid}  ( {pid}) [000] ...1. 10.{micros}: inet_sock_set_state: family=AF_INET \
             protocol=IPPROTO_TCP sport=80 dport={pid} saddrv6=::ffff:127.0.0.1 daddrv6=::ffff:127.0.0.1 \
             oldstate=TCP_ESTABLISHED newstate=TCP_FIN_WAIT1"
        )
    }

    fn killed(lines: &[String]) -> Vec<bool> {
        let resets = resets(&[], lines);
        resets.iter().map(|it| it.killed.is_some()).collect()
    }

    /// Three threads close at the same time; the first two had been killed, and the RST to the second one's port
    /// answers a segment.
    #[test]
    fn a_rst_that_a_killed_thread_sent_itself_is_due_to_the_kill() {
        let sent_by = |pid: u16, answers: u8| {
            format!(
                "  s-{pid}  ( {pid}) [000] ..... 10.500000: tcp_send_reset: skaddr=01 src=127.0.0.1:80 \
                 state=TCP_CLOSE reason=TCP_ABORT_ON_CLOSE skbaddr=0{answers} dest=127.0.0.1:{pid}"
            )
        };
        let lines = [
            kill(1),
            kill(2),
            sent_by(1, 0),
            sent_by(2, 1),
            sent_by(3, 0),
        ];
        assert_eq!(killed(&lines), [true, false, false]);
    }

    #[test]
    fn a_rst_for_bytes_after_the_close_of_a_killed_thread_is_due_to_the_kill() {
        let reset = |client| answer(60_000, client, "TCP_ABORT_ON_DATA").replace("10.0", "11.0");
        let lines = [
            kill(1),
            close(1, 500_000),
            reset(1),
            close(2, 500_000),
            reset(2),
        ];
        assert_eq!(killed(&lines), [true, false]);
        // The ports are used again, by a process that is not killed.
        let lines = [
            kill(1),
            close(1, 500_000),
            close(1, 600_000).replace("s-1 ", "s-9 "),
            reset(1),
        ];
        assert_eq!(killed(&lines), [false]);
        let word = resets(&[], &lines)[0].evidence().kernel.unwrap();
        assert_eq!(word.reset.unwrap().reason, Some(Reason::AbortOnData));
    }
}
