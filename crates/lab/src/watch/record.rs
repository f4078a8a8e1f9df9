use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use rstlab_wire::nanos;
use rstlab_witness::{CapturedReset, Cause, Judged, Known, Level, Owners, Place, State};
use serde::Serialize;

/// One RST, as `--json` prints it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Record {
    /// When, UTC (RFC 3339, microseconds).
    pub time: String,
    /// When, on `CLOCK_MONOTONIC`, in nanoseconds.
    pub monotonic_ns: u64,
    /// Who tells of it: `kernel` or `packets`.
    pub witness: &'static str,
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
    /// Flags of the segment, as tcpdump shows them, where it was captured.
    pub flags: Option<String>,
    /// Why, in one word; an echo has no cause of its own.
    pub cause: Option<&'static str>,
    /// How the cause is known: `proved` or `inferred`.
    pub known: Option<&'static str>,
    /// Why, in one sentence.
    pub explanation: &'static str,
    /// The process whose system call sent it.
    pub sender: Option<Process>,
    /// The process that listens on the port it came from, where the kernel sent it unasked.
    pub owner: Option<Owner>,
    /// The processor it was sent on, where the kernel says it.
    pub cpu: Option<u32>,
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

impl From<rstlab_witness::Owner> for Owner {
    fn from(owner: rstlab_witness::Owner) -> Self {
        Self {
            process: owner.process.into(),
            others: owner.others,
        }
    }
}

impl Record {
    /// Puts together what is known of a RST that was sent at `time`, by a thread that had been killed or not.
    pub(super) fn of_kernel(
        judged: &Judged,
        killed: bool,
        time: SystemTime,
        owners: &mut Owners,
    ) -> Self {
        let event = &judged.event;
        let sender = event.sender();
        // Where no socket was, whoever listens now has come since.
        let had_socket = event.state != Some(State::NoSocket);
        let owner = if sender.is_none() && had_socket {
            owners.of(event.source)
        } else {
            None
        };
        let cause = (judged.place == Place::First).then(|| {
            if killed {
                Cause::Killed
            } else {
                Cause::of(event.reason.as_ref(), event.state.as_ref())
            }
        });
        let is_known = cause.is_some_and(|cause| cause != Cause::Unknown);
        Self {
            time: humantime::format_rfc3339_micros(time).to_string(),
            monotonic_ns: nanos(event.stamp.time),
            witness: Level::Kernel.as_str(),
            place: place(judged.place),
            from: event.source,
            to: event.destination,
            reason: event.reason.as_ref().map(ToString::to_string),
            state: event.state.as_ref().map(ToString::to_string),
            flags: None,
            cause: cause.map(Cause::as_str),
            known: is_known.then_some(Known::Proved.as_str()),
            explanation: cause.map_or(
                "A segment came for a connection that had already been reset.",
                Cause::sentence,
            ),
            sender: sender.map(Process::from),
            owner: owner.map(Owner::from),
            cpu: Some(event.stamp.cpu),
        }
    }

    /// Puts together what a capture shows of a RST, and who listens where it came from.
    pub(super) fn of_packet(reset: &CapturedReset, owner: Option<rstlab_witness::Owner>) -> Self {
        let packet = &reset.packet;
        let time = UNIX_EPOCH + packet.since_epoch();
        let cause = reset.cause();
        let known = cause.filter(|(cause, _)| *cause != Cause::Unknown);
        Self {
            time: humantime::format_rfc3339_micros(time).to_string(),
            monotonic_ns: nanos(packet.at),
            witness: Level::Packets.as_str(),
            place: place(reset.place),
            from: packet.from,
            to: Some(packet.to),
            reason: None,
            state: None,
            flags: Some(packet.flags.to_string()),
            cause: cause.map(|(cause, _)| cause.as_str()),
            known: known.map(|(_, known)| known.as_str()),
            explanation: match cause {
                None => "Its connection had already been reset.",
                Some((cause, known)) => cause.sentence_of_packets(known),
            },
            sender: None,
            owner: owner.map(Owner::from),
            cpu: None,
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

fn place(place: Place) -> &'static str {
    match place {
        Place::First => "first",
        Place::Echo => "echo",
    }
}
