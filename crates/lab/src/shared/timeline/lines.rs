//! The lines of a timeline: which events have a line of their own, and which share one.

use std::collections::HashMap;
use std::time::Duration;

use rstlab_wire::SysCall;
use rstlab_witness::{Event, Lane, Side, What};

use super::words;
use super::{MAX_CHARS, Mark, TimelineLine};
use crate::shared::printable::printable;
use rstlab_cli::grouped;

/// This many alike events share a line.
const MANY: usize = 3;

/// Kinds of events that can share a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum EventKind {
    Call(Lane, SysCall),
    /// A packet with payload, from this side.
    Data(Side),
    /// A packet that only acknowledges, from this side.
    Ack(Side),
}

/// Events of one kind that came between two important ones.
struct EventGroup<'a> {
    kind: EventKind,
    events: Vec<&'a Event>,
}

/// The lines for events, in order of time.
///
/// An important event, such as a close, a RST, a failure or the write of a head, has its own line. Between two important
/// events, three or more events of one kind share a line, because a response takes many reads and packets.
pub(super) fn of(events: &[Event]) -> Vec<TimelineLine> {
    let start = events.first().map_or(0, |event| event.at_ns);
    let mut drawing = LineWriter {
        start,
        lines: Vec::new(),
        groups: Vec::new(),
        count: HashMap::new(),
    };
    let mut rest = events;
    while let Some((event, after)) = rest.split_first() {
        let remarks = after
            .iter()
            .take_while(|next| is_remark(event, next))
            .count();
        let (remarks, after) = after.split_at(remarks);
        drawing.add(event, remarks);
        rest = after;
    }
    drawing.end_groups();
    drawing.lines
}

fn is_remark(event: &Event, next: &Event) -> bool {
    matches!(event.what, What::Call { .. })
        && matches!(next.what, What::Note { .. })
        && (event.lane, event.at_ns) == (next.lane, next.at_ns)
}

/// Whether an event is not worth drawing: a call that changes nothing on the wire, unless it failed.
fn says_nothing(event: &Event) -> bool {
    matches!(
        event.what,
        What::Call {
            call: SysCall::Nodelay | SysCall::SoError,
            errno: None,
            ..
        }
    )
}

struct LineWriter<'a> {
    start: u64,
    lines: Vec<TimelineLine>,
    groups: Vec<EventGroup<'a>>,
    /// How many events of a kind there were.
    count: HashMap<EventKind, usize>,
}

impl<'a> LineWriter<'a> {
    fn add(&mut self, event: &'a Event, remarks: &[Event]) {
        if says_nothing(event) {
            return;
        }
        match self.kind(event) {
            Some(kind) if remarks.is_empty() => {
                match self.groups.iter_mut().find(|group| group.kind == kind) {
                    Some(group) => group.events.push(event),
                    None => self.groups.push(EventGroup {
                        kind,
                        events: vec![event],
                    }),
                }
            }
            _ => {
                self.end_groups();
                let line = self.line(event.at_ns, one(event, remarks));
                self.lines.push(line);
            }
        }
    }

    /// The kind of an event; `None` if the event is important.
    fn kind(&mut self, event: &Event) -> Option<EventKind> {
        let (kind, own) = match event.what {
            What::Call {
                call,
                returned: Some(returned),
                ..
            } => {
                let own = match call {
                    // The proxy writes a head and a body; of a response only the first write is important.
                    SysCall::Writev if event.lane == Lane::Upstream => 1,
                    SysCall::Writev => 2,
                    // The first read is the beginning of an answer or of a request.
                    SysCall::Recv if returned > 0 => 1,
                    SysCall::Splice if returned > 0 => 0,
                    SysCall::Peek | SysCall::Nodelay | SysCall::SoError => 0,
                    SysCall::Recv
                    | SysCall::Splice
                    | SysCall::Connect
                    | SysCall::Accept4
                    | SysCall::LingerZero
                    | SysCall::Shutdown
                    | SysCall::Unread
                    | SysCall::Unsent
                    | SysCall::Close => return None,
                };
                (EventKind::Call(event.lane, call), own)
            }
            What::Packet {
                from,
                ref flags,
                payload_bytes,
                ..
            } if !flags.contains(['S', 'F', 'R']) => match (payload_bytes, from) {
                (0, _) => (EventKind::Ack(from), 0),
                // The first two packets of the client are a request's head and its body.
                (_, Side::Client) => (EventKind::Data(from), 2),
                (_, Side::Server) => (EventKind::Data(from), 0),
            },
            _ => return None,
        };
        let count = self.count.entry(kind).or_default();
        *count += 1;
        (*count > own).then_some(kind)
    }

    fn end_groups(&mut self) {
        let mut lines = Vec::new();
        for group in std::mem::take(&mut self.groups) {
            match group.events.as_slice() {
                [first, ..] if group.events.len() >= MANY => {
                    lines.push(self.line(first.at_ns, together(group.kind, &group.events)));
                }
                few => lines.extend(
                    few.iter()
                        .map(|event| self.line(event.at_ns, one(event, &[]))),
                ),
            }
        }
        lines.sort_by_key(|line| line.at);
        self.lines.append(&mut lines);
    }

    fn line(&self, at_ns: u64, mark: Mark) -> TimelineLine {
        TimelineLine {
            at: Duration::from_micros((at_ns / 1000).saturating_sub(self.start / 1000)),
            mark,
        }
    }
}

/// One event with its remarks.
fn one(event: &Event, remarks: &[Event]) -> Mark {
    let (text, bad) = match &event.what {
        What::Packet {
            from,
            flags,
            payload_bytes,
            ..
        } => {
            return Mark::Arrow {
                from: *from,
                text: words::packet(flags, *payload_bytes),
                bad: flags.contains('R'),
            };
        }
        What::Call {
            call,
            returned,
            errno,
        } => {
            let result = returned.ok_or(errno.unwrap_or(0));
            let mut text = words::call(*call, result);
            for remark in remarks {
                if let What::Note { text: remark } = &remark.what {
                    text += &format!(" ({})", printable(remark, MAX_CHARS));
                }
            }
            (text, result.is_err())
        }
        What::Reset {
            from,
            reason,
            state,
        } => (words::reset(*from, reason.as_ref(), state.as_ref()), true),
        What::Closed { from, state, by } => {
            let (side, state) = (words::side(*from), words::state(state));
            (
                format!("{side} → {state}\nby {}", words::process(by)),
                false,
            )
        }
        What::Killed { process } => (format!("SIGKILL for\n{}", words::process(process)), true),
        What::Note { text } => (printable(text, MAX_CHARS), false),
    };
    Mark::Words {
        lane: event.lane,
        text,
        bad,
    }
}

/// Events of one kind in one line: their number and the sum of their bytes.
fn together(kind: EventKind, events: &[&Event]) -> Mark {
    let count = grouped(events.len() as u64);
    let bytes = events.iter().fold(0_u64, |sum, event| {
        sum.saturating_add(match event.what {
            What::Call { returned, .. } => returned.unwrap_or(0),
            What::Packet { payload_bytes, .. } => payload_bytes.into(),
            _ => 0,
        })
    });
    let arrow = |from, text| Mark::Arrow {
        from,
        text,
        bad: false,
    };
    match kind {
        EventKind::Call(lane, call) => Mark::Words {
            lane,
            text: match call {
                SysCall::Recv | SysCall::Splice | SysCall::Writev => {
                    format!("{count} × {}", words::call(call, Ok(bytes)))
                }
                _ => format!("{count} × {}", call.as_str()),
            },
            bad: false,
        },
        EventKind::Data(from) => arrow(from, format!("{} in {count}", words::bytes(bytes))),
        EventKind::Ack(from) => arrow(from, format!("{count} × ACK")),
    }
}
