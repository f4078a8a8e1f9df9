use std::net::SocketAddr;
use std::time::SystemTime;

use rstlab_witness::{Cause, Judged, Owners, Place, State};
use serde::Serialize;

/// One RST, as `--json` prints it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Record {
    /// When, UTC (RFC 3339, microseconds).
    pub time: String,
    /// When, on `CLOCK_MONOTONIC`, in nanoseconds.
    pub monotonic_ns: u64,
    /// `first` or `echo`.
    pub place: &'static str,
    /// Whom it came from; in the state LISTEN the address the listener is bound to.
    pub from: SocketAddr,
    /// Whom it went to, where the kernel says it.
    pub to: Option<SocketAddr>,
    /// The kernel's reason.
    pub reason: Option<String>,
    /// State of the socket; none is there if the kernel says `UNKNOWN`.
    pub state: Option<String>,
    /// Why, in one word; an echo has no cause of its own.
    pub cause: Option<&'static str>,
    /// Why, in one sentence.
    pub explanation: &'static str,
    /// The process whose system call sent it.
    pub sender: Option<Process>,
    /// The process that listens on the port it came from, where the kernel sent it unasked.
    pub owner: Option<Owner>,
    /// The processor it was sent on.
    pub cpu: u32,
}

/// A process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Process {
    /// Its name, if it is known.
    pub name: Option<String>,
    /// Its number.
    pub pid: u32,
}

/// A process that listens on a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Owner {
    /// The one with the lowest number.
    #[serde(flatten)]
    pub process: Process,
    /// How many more listen there.
    pub others: usize,
}

impl From<rstlab_witness::Process> for Process {
    fn from(process: rstlab_witness::Process) -> Self {
        Self {
            name: process.name,
            pid: process.pid,
        }
    }
}

impl Record {
    /// Puts together what is known of a RST that was sent at `time`.
    pub(super) fn new(judged: &Judged, time: SystemTime, owners: &mut Owners) -> Self {
        let event = &judged.event;
        let sender = event.sender().map(Process::from);
        // Where no socket was, whoever listens now has come since.
        let had_socket = event.state != Some(State::NoSocket);
        let owner = if sender.is_none() && had_socket {
            owners.of(event.source)
        } else {
            None
        };
        let (cause, explanation) = match judged.place {
            Place::First => {
                let cause = Cause::of(event.reason.as_ref(), event.state.as_ref());
                (Some(cause.as_str()), cause.sentence())
            }
            Place::Echo => (
                None,
                "A segment came for a connection that had already been reset.",
            ),
        };
        Self {
            time: humantime::format_rfc3339_micros(time).to_string(),
            monotonic_ns: u64::try_from(event.stamp.time.as_nanos()).unwrap_or(u64::MAX),
            place: match judged.place {
                Place::First => "first",
                Place::Echo => "echo",
            },
            from: event.source,
            to: event.destination,
            reason: event.reason.as_ref().map(ToString::to_string),
            state: event.state.as_ref().map(ToString::to_string),
            cause,
            explanation,
            sender,
            owner: owner.map(|owner| Owner {
                process: owner.process.into(),
                others: owner.others,
            }),
            cpu: event.stamp.cpu,
        }
    }

    /// One line of JSON.
    pub(super) fn json(&self) -> String {
        // Strings, numbers and addresses: nothing that JSON could not hold.
        let mut line = serde_json::to_string(self).unwrap_or_default();
        line.push('\n');
        line
    }
}
