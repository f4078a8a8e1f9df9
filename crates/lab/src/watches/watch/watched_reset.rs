//! One RST, as `rstlab watch` prints it.

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use rstlab_wire::nanos;
use rstlab_witness::{
    CapturedReset, Cause, Container, Evidence, Known, Level, Owner, Place, Process, Reason, State,
    TracedReset, Verdict,
};
use schemars::JsonSchema;
use serde::Serialize;

use super::requests::CapturedRequests;

/// One RST that this machine sent, or also received if the packets tell of it; one object a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, title = "rstlab watch --json")]
pub struct WatchedReset {
    /// When, UTC (RFC 3339, microseconds).
    #[schemars(extend("format" = "date-time"))]
    pub time: String,
    /// When, on `CLOCK_MONOTONIC`, in nanoseconds.
    pub monotonic_ns: u64,
    /// Who tells of it: `kernel` or `packets`.
    #[schemars(extend("enum" = ["kernel", "packets"]))]
    pub witness: Level,
    /// Whether it ended the connection, or came after.
    pub place: Place,
    /// The address it came from; in the state `TCP_LISTEN` the address that the listener is bound to.
    pub from: SocketAddr,
    /// The address it went to; null in the state `TCP_LISTEN`, where the kernel does not say it.
    pub to: Option<SocketAddr>,
    /// The kernel's reason (`include/net/rstreason.h`); null if this kernel gives none, and from the packets.
    pub reason: Option<Reason>,
    /// State of the socket that sent it; `UNKNOWN` if there was none; null from the packets.
    pub state: Option<State>,
    /// Flags of the segment as tcpdump shows them; null from the kernel.
    pub flags: Option<String>,
    /// Why the connection was reset; null for an echo, which has no cause of its own.
    #[schemars(extend("enum" = causes_of_a_reset()))]
    pub cause: Option<Cause>,
    /// How the cause is known; null for an echo and for an unknown cause. Inferred: another cause may look the same, or
    /// too little was captured.
    #[schemars(extend("enum" = ["proved", "inferred", null]))]
    pub known: Option<Known>,
    /// The cause in a sentence.
    pub explanation: &'static str,
    /// The process whose own system call sent the RST; null if the kernel sent it unasked, and from the packets.
    pub sender: Option<Process>,
    /// Where no sender is told: the process that listens on the port it came from; null if there is none or it is not
    /// certain.
    pub owner: Option<Owner>,
    /// The container of the sender or of the owner, by its cgroup; null if it is in none, or has ended.
    pub container: Option<Container>,
    /// With --http: method and path of the last request on the connection, `POST /orders`, if packets show it; null also
    /// for an echo.
    pub request: Option<String>,
    /// The processor it was sent on; null from the packets.
    pub cpu: Option<u32>,
}

/// Every cause that one RST can have, and null.
fn causes_of_a_reset() -> Vec<Option<Cause>> {
    let without = [Cause::ClosedWithoutAnswer, Cause::NoReset];
    let causes = Cause::ALL.into_iter().filter(|it| !without.contains(it));
    causes.map(Some).chain([None]).collect()
}

/// The cause of a RST, and how it is known: the side that sent the RST is judged.
pub(super) fn cause(evidence: &Evidence, from: SocketAddr) -> (Cause, Known) {
    let Verdict { cause, known, .. } = Verdict::of(evidence, from);
    (cause, known)
}

impl WatchedReset {
    /// Puts together what the kernel tells of a RST that was sent at `time`, what was captured of its connection, and
    /// who listens where it came from.
    pub(super) fn of_kernel(
        reset: &TracedReset,
        time: SystemTime,
        captured: &CapturedRequests,
        owner_of: impl FnOnce(SocketAddr) -> Option<Owner>,
    ) -> Self {
        let mut evidence = reset.evidence();
        let is_first = reset.place == Place::First;
        let request = is_first.then(|| captured.of(&reset.event, &mut evidence));
        let sender =
            (evidence.kernel.as_ref()).and_then(|word| word.reset.as_ref()?.sender.clone());
        // While `Owners` looks at a descriptor of a process, it holds the socket (`proc_fd_link`). If the process ends
        // meanwhile, the kernel closes the socket in our thread: then the sender is not known.
        let sender = sender.filter(|it| it.pid != std::process::id());
        let event = &reset.event;
        // If there was no socket, a process that listens now came after the RST.
        let has_owner = sender.is_none() && event.state != Some(State::NoSocket);
        let cause = is_first.then(|| cause(&evidence, event.source));
        let owner = has_owner.then(|| owner_of(event.source)).flatten();
        let container = match (&sender, &owner) {
            (Some(sender), _) => Container::of_traced(sender, event.stamp.time),
            (None, owner) => container_of(owner.as_ref()),
        };
        Self {
            time: humantime::format_rfc3339_micros(time).to_string(),
            monotonic_ns: nanos(event.stamp.time),
            witness: Level::Kernel,
            place: reset.place,
            from: event.source,
            to: event.destination,
            reason: event.reason.clone(),
            state: event.state.clone(),
            flags: None,
            cause: cause.map(|(cause, _)| cause),
            known: known(cause),
            explanation: cause.map_or(
                "A segment came for a connection that had already been reset.",
                |(cause, _)| cause.sentence(),
            ),
            owner,
            sender,
            container,
            request: request.flatten(),
            cpu: Some(event.stamp.cpu),
        }
    }

    /// Puts together what a capture shows of a RST, and who listens where it came from.
    pub(super) fn of_packet(
        reset: &CapturedReset,
        http: bool,
        owner_of: impl FnOnce(SocketAddr) -> Option<Owner>,
    ) -> Self {
        let packet = &reset.packet;
        let time = UNIX_EPOCH + packet.since_epoch();
        let cause = (reset.place == Place::First).then(|| cause(&reset.evidence(), packet.from));
        // If nobody listened, a process that listens now came after the RST.
        let had_owner = !matches!(cause, Some((Cause::Refused, _)));
        let owner = had_owner.then(|| owner_of(packet.from)).flatten();
        Self {
            time: humantime::format_rfc3339_micros(time).to_string(),
            monotonic_ns: nanos(packet.at),
            witness: Level::Packets,
            place: reset.place,
            from: packet.from,
            to: Some(packet.to),
            reason: None,
            state: None,
            flags: Some(packet.flags.to_string()),
            cause: cause.map(|(cause, _)| cause),
            known: known(cause),
            explanation: match cause {
                None => "Its connection had already been reset.",
                Some((cause, known)) => cause.sentence_of_packets(known),
            },
            sender: None,
            container: container_of(owner.as_ref()),
            owner,
            request: reset.request.clone().filter(|_| http),
            cpu: None,
        }
    }

    /// The process that sent it, or that listens where it came from.
    pub(super) fn process(&self) -> Option<&Process> {
        let owner = self.owner.as_ref().map(|owner| &owner.process);
        self.sender.as_ref().or(owner)
    }

    /// One line of JSON.
    pub(super) fn json(&self) -> String {
        // Strings, numbers and addresses: nothing that JSON could not hold.
        let mut line = serde_json::to_string(self).unwrap_or_default();
        line.push('\n');
        line
    }
}

fn container_of(owner: Option<&Owner>) -> Option<Container> {
    Container::of_process(&owner?.process)
}

fn known(cause: Option<(Cause, Known)>) -> Option<Known> {
    let (_, known) = cause.filter(|(cause, _)| *cause != Cause::Unknown)?;
    Some(known)
}

#[cfg(test)]
mod tests {
    use rstlab_witness::{ResetEvent, Stamp, monotonic_now};

    use super::*;

    #[test]
    fn this_process_is_never_named_as_the_sender() {
        let own = std::process::id();
        // No process has a number so high (`PID_MAX_LIMIT`).
        for (pid, is_named) in [(own, false), (4_194_305, true)] {
            let event = ResetEvent {
                stamp: Stamp {
                    time: monotonic_now(),
                    comm: Some("worker".to_owned()),
                    pid,
                    process: Some(pid),
                    cpu: 0,
                    in_interrupt: false,
                },
                own_call: true,
                source: "127.0.0.1:80".parse().unwrap(),
                destination: "127.0.0.1:4000".parse().ok(),
                state: Some(State::Close),
                reason: Some(Reason::AbortOnClose),
            };
            let reset = TracedReset {
                event,
                place: Place::First,
                killed: None,
            };
            let owner = Owner {
                process: Process { name: None, pid: 7 },
                others: 0,
            };
            let watched =
                WatchedReset::of_kernel(&reset, UNIX_EPOCH, &CapturedRequests::default(), |_| {
                    Some(owner)
                });
            assert_eq!(watched.sender.is_some(), is_named);
            assert_eq!(watched.owner.is_none(), is_named);
        }
    }
}
