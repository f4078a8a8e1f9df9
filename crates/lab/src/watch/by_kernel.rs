use std::time::SystemTime;

use anyhow::Context as _;
use rstlab_witness::{
    BadLine, Judged, Kernel, Killed, Ledger, Line, Owners, ResetEvent, Scope, Unavailable,
    monotonic_now,
};

use super::source::Missing;
use super::{Record, note};

/// Resets as the kernel's trace tells them.
pub(super) struct ByKernel {
    kernel: Kernel,
    lines: Vec<Result<Line, BadLine>>,
    told: Told,
}

impl ByKernel {
    pub(super) fn open(ports: &[u16]) -> Result<Self, Unavailable> {
        Ok(Self {
            kernel: Kernel::open(Scope::Resets)?,
            lines: Vec::new(),
            told: Told::new(ports),
        })
    }

    pub(super) fn note_limits(&self) {
        let format = self.kernel.format();
        if !format.has_reason() {
            note("this kernel gives no reasons (Linux 6.10 and newer do): every cause is unknown");
        } else if !format.tells_closes_apart() {
            note("this kernel does not tell one close from another (Linux 6.12 and newer do)");
        }
    }

    pub(super) async fn next(&mut self, records: &mut Vec<Record>) -> anyhow::Result<()> {
        tokio::select! {
            biased;
            read = self.kernel.read(&mut self.lines) => read.context("cannot read the trace pipe")?,
            () = self.told.ledger.until_due() => {}
        }
        self.told.take(&mut self.lines);
        self.told.ledger.due(monotonic_now(), &mut self.told.judged);
        self.told.records(records);
        Ok(())
    }

    pub(super) fn missing(&self) -> Missing {
        self.told.missing()
    }

    pub(super) fn finish(self, records: &mut Vec<Record>) -> anyhow::Result<Missing> {
        let Self {
            kernel,
            mut lines,
            mut told,
        } = self;
        kernel
            .finish(&mut lines)
            .context("cannot read the trace pipe")?;
        told.take(&mut lines);
        told.ledger.finish(&mut told.judged);
        told.records(records);
        Ok(told.missing())
    }
}

/// What the kernel has told.
struct Told {
    ports: Vec<u16>,
    ledger: Ledger,
    killed: Killed,
    owners: Owners,
    judged: Vec<Judged>,
    lost_events: u64,
    bad_lines: u64,
}

impl Told {
    fn new(ports: &[u16]) -> Self {
        Self {
            ports: ports.to_vec(),
            ledger: Ledger::default(),
            killed: Killed::default(),
            owners: Owners::default(),
            judged: Vec::new(),
            lost_events: 0,
            bad_lines: 0,
        }
    }

    fn take(&mut self, lines: &mut Vec<Result<Line, BadLine>>) {
        for line in lines.drain(..) {
            match line {
                Ok(Line::Reset(event)) if self.is_watched(&event) => {
                    self.ledger.see(event, &mut self.judged);
                }
                Ok(Line::Kill(event)) => self.killed.see(&event),
                Ok(Line::Reset(_) | Line::Close(_)) => {}
                Ok(Line::Lost { cpu, events }) => {
                    // At least one, where the kernel does not know how many.
                    self.lost_events += events.unwrap_or(1);
                    let count = events.map_or("some".to_owned(), |count| count.to_string());
                    note(&format!(
                        "the kernel lost {count} events of CPU {cpu}: resets are missing here"
                    ));
                }
                Err(bad) => {
                    self.bad_lines += 1;
                    note(&bad.to_string());
                }
            }
        }
    }

    fn missing(&self) -> Missing {
        Missing::Kernel {
            lost_events: self.lost_events,
            bad_lines: self.bad_lines,
        }
    }

    fn is_watched(&self, event: &ResetEvent) -> bool {
        let ends = [Some(event.source), event.destination];
        self.ports.is_empty()
            || ends
                .iter()
                .flatten()
                .any(|end| self.ports.contains(&end.port()))
    }

    /// Adds what has been judged.
    fn records(&mut self, records: &mut Vec<Record>) {
        // The same moment on both clocks: what they differ by is the time of day at which the machine started.
        let (mono, real) = (monotonic_now(), SystemTime::now());
        for judged in self.judged.drain(..) {
            let stamp = &judged.event.stamp;
            let time = real - mono.saturating_sub(stamp.time);
            // What a killed thread does of its own is what the kernel does for it as it dies.
            let killed = judged.event.own_call && self.killed.before(stamp).is_some();
            records.push(Record::of_kernel(&judged, killed, time, &mut self.owners));
        }
    }
}

#[cfg(test)]
mod tests {
    use rstlab_witness::Reason;

    use super::*;

    fn lines(count: u16) -> Vec<Result<Line, BadLine>> {
        let lines = (0..count).map(|n| {
            Line::parse(&format!(
                "  server-1  ( 1) [000] ..s2.  10.{:06}: tcp_send_reset: skbaddr=01 skaddr=01 \
                 src=127.0.0.1:80 dest=127.0.0.1:{} state=TCP_CLOSE reason=TCP_ABORT_ON_DATA",
                n,
                4000 + n
            ))
        });
        lines.collect()
    }

    fn records(told: &mut Told) -> Vec<Record> {
        let mut records = Vec::new();
        told.records(&mut records);
        records
    }

    #[test]
    fn only_the_ports_that_were_asked_for() {
        for (ports, count) in [(&[4001, 4003][..], 2), (&[80], 10), (&[], 10)] {
            let mut told = Told::new(ports);
            told.take(&mut lines(10));
            assert_eq!(records(&mut told).len(), count);
        }
    }

    #[test]
    fn what_is_missing_is_counted() {
        let mut told = Told::new(&[]);
        let lines = ["CPU:0 [LOST 7 EVENTS]", "CPU:1 [LOST EVENTS]", "x"];
        told.take(&mut lines.map(Line::parse).into());
        let expected = Missing::Kernel {
            lost_events: 8,
            bad_lines: 1,
        };
        assert_eq!(told.missing(), expected);
    }

    #[test]
    fn an_echo_is_told_as_one() {
        let mut told = Told::new(&[]);
        let mut both = lines(1);
        both.extend(lines(1));
        if let Some(Ok(Line::Reset(echo))) = both.last_mut() {
            echo.reason = Some(Reason::NoSocket);
        }
        told.take(&mut both);
        let places: Vec<_> = records(&mut told).iter().map(|it| it.place).collect();
        assert_eq!(places, ["first", "echo"]);
    }

    /// Three threads close at the same time; the first one had been killed, the second one's RST is the kernel's own.
    #[test]
    fn only_what_a_killed_thread_did_itself_is_its_death() {
        let told_of = |pid: u32, answers: u8| {
            let event = "tcp_send_reset: skaddr=01 src=127.0.0.1:80 state=TCP_CLOSE reason=TCP_ABORT_ON_CLOSE";
            Line::parse(&format!(
                "  s-{pid}  ( {pid}) [000] ..... 10.500000: {event} skbaddr=0{answers} dest=127.0.0.1:{pid}"
            ))
        };
        let kill = |pid| {
            Line::parse(&format!(
                "  s-{pid}  ( {pid}) [000] d..1. 10.400000: signal_deliver: sig=9 errno=0"
            ))
        };
        let mut told = Told::new(&[]);
        told.take(&mut vec![
            kill(1),
            kill(2),
            told_of(1, 0),
            told_of(2, 1),
            told_of(3, 0),
        ]);
        let causes: Vec<_> = records(&mut told).iter().map(|it| it.cause).collect();
        let unread = Some("unread-at-close");
        assert_eq!(causes, [Some("killed"), unread, unread]);
    }
}
