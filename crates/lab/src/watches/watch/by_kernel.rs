//! Resets as the kernel's trace tells them.

use std::time::SystemTime;

use anyhow::Context as _;
use rstlab_witness::{KernelTrace, Owners, Scope, TraceEvent, Unavailable, monotonic_now};

use super::missing::Missing;
use super::note::note;
use super::requests::{CapturedRequests, Requests};
use super::watched_reset::WatchedReset;

/// Resets as the kernel's trace tells them.
pub(super) struct ByKernel {
    trace: KernelTrace,
    /// The packets, if the requests are to be told and can be captured.
    requests: Option<Requests>,
    output: TraceOutput,
}

impl ByKernel {
    pub(super) fn open(ports: &[u16], http: bool) -> Result<Self, Unavailable> {
        Ok(Self {
            requests: http.then(|| requests(ports)).flatten(),
            // The closes tell that a process was killed, also if bytes reset its connection later.
            trace: KernelTrace::open(Scope::Closes(ports))?,
            output: TraceOutput::default(),
        })
    }

    pub(super) fn note_limits(&self) {
        let format = self.trace.format();
        if !format.has_reason() {
            note("this kernel gives no reasons (Linux 6.10 and newer do): every cause is unknown");
        } else if !format.tells_closes_apart() {
            note("this kernel does not tell one close from another (Linux 6.12 and newer do)");
        }
    }

    pub(super) async fn next(&mut self, resets: &mut Vec<WatchedReset>) -> anyhow::Result<()> {
        let read = self.trace.next(&mut self.output.events).await;
        read.context("cannot read the trace pipe")?;
        // If this future is dropped here, the events are still in `output`.
        let captured = captured(self.requests.as_ref(), &self.output.events).await;
        self.output.give(&captured, resets);
        Ok(())
    }

    pub(super) fn missing(&self) -> Missing {
        self.output.missing()
    }

    pub(super) async fn finish(self, resets: &mut Vec<WatchedReset>) -> anyhow::Result<Missing> {
        let Self {
            trace,
            requests,
            mut output,
        } = self;
        let read = trace.finish(&mut output.events);
        read.context("cannot read the trace pipe")?;
        let captured = captured(requests.as_ref(), &output.events).await;
        output.give(&captured, resets);
        Ok(output.missing())
    }
}

/// The capture of the requests; a note says if there is none.
fn requests(ports: &[u16]) -> Option<Requests> {
    let opened = Requests::open(ports);
    let no_requests = |error| {
        let error = anyhow::Error::from(error);
        note(&format!(
            "requests (--http) cannot be told, because the kernel's trace has none, and packets cannot be captured: \
             {error:#}"
        ));
    };
    opened.map_err(no_requests).ok()
}

async fn captured(requests: Option<&Requests>, events: &[TraceEvent]) -> CapturedRequests {
    match requests {
        Some(requests) => requests.of(events).await,
        None => CapturedRequests::default(),
    }
}

/// What the trace has told.
#[derive(Default)]
struct TraceOutput {
    events: Vec<TraceEvent>,
    owners: Owners,
    lost_events: u64,
    bad_lines: u64,
}

impl TraceOutput {
    /// Adds the resets among the events; notes and counts what is missing.
    fn give(&mut self, captured: &CapturedRequests, resets: &mut Vec<WatchedReset>) {
        // Both clocks are read at the same moment; they differ by the time at which the machine started.
        let (mono, real) = (monotonic_now(), SystemTime::now());
        for event in self.events.drain(..) {
            match event {
                TraceEvent::Reset(reset) => {
                    let time = real - mono.saturating_sub(reset.event.stamp.time);
                    let owner_of = |address| self.owners.of(address);
                    resets.push(WatchedReset::of_kernel(&reset, time, captured, owner_of));
                }
                TraceEvent::Close(_) => {}
                TraceEvent::Lost { cpu, events } => {
                    // If the kernel does not know how many events it lost, it lost at least one.
                    self.lost_events += events.unwrap_or(1);
                    let count = events.map_or("some".to_owned(), |count| count.to_string());
                    note(&format!(
                        "the kernel lost {count} events of CPU {cpu}: resets are missing here"
                    ));
                }
                TraceEvent::Bad(bad) => {
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
}

#[cfg(test)]
mod tests {
    use rstlab_witness::BadLine;

    use super::*;

    #[test]
    fn lost_events_and_bad_lines_are_counted() {
        let lost = |cpu, events| TraceEvent::Lost { cpu, events };
        let bad = BadLine {
            what: "no event",
            line: "x".to_owned(),
        };
        let mut output = TraceOutput {
            events: vec![lost(0, Some(7)), lost(1, None), TraceEvent::Bad(bad)],
            ..TraceOutput::default()
        };
        let mut resets = Vec::new();
        output.give(&CapturedRequests::default(), &mut resets);
        assert!(resets.is_empty());
        let expected = Missing::Kernel {
            lost_events: 8,
            bad_lines: 1,
        };
        assert_eq!(output.missing(), expected);
    }
}
