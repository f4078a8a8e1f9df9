//! Marks the calls that carried a request.

use rstlab_wire::{Moment, SysCall};

use crate::evidence::{Event, Lane};

/// Marks the calls that carried a request: those with its head, and the first with its body.
///
/// The proxy writes the request, the upstream reads it.
pub(crate) fn remarks(lane: Lane, calls: &[Moment], head_bytes: u64) -> Vec<Event> {
    let carries = match lane {
        Lane::Proxy => SysCall::Writev,
        Lane::Upstream => SysCall::Recv,
        Lane::Client | Lane::Wire | Lane::Kernel => return Vec::new(),
    };
    let mut found = Vec::new();
    let mut before = 0;
    for moment in calls.iter().filter(|moment| moment.call == carries) {
        let bytes = moment.returned.unwrap_or(0);
        if head_bytes == 0 || bytes == 0 {
            break;
        }
        let remark = match (before < head_bytes, before + bytes > head_bytes) {
            (true, false) => "head",
            (true, true) => "head, body",
            (false, _) => "body",
        };
        found.push(Event::note(moment.at, lane, remark.to_owned()));
        before += bytes;
        if before > head_bytes {
            break;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::evidence::What;

    /// The marks of these calls, each with its time.
    fn marked(lane: Lane, calls: &[(SysCall, Result<u64, i32>)], head_bytes: u64) -> Vec<String> {
        let calls = calls.iter().zip(0..).map(|(&(call, returned), at)| Moment {
            at: Duration::from_nanos(at),
            call,
            returned,
        });
        let remarks = remarks(lane, &calls.collect::<Vec<_>>(), head_bytes);
        let text = |event: &Event| match &event.what {
            What::Note { text } => format!("{} {text}", event.at_ns),
            other => panic!("{other:?}"),
        };
        remarks.iter().map(text).collect()
    }

    #[test]
    fn calls_that_carried_head_and_body_are_marked() {
        use SysCall::{Connect, Recv, Writev};
        let calls = [
            (Connect, Ok(0)),
            (Writev, Ok(93)),
            (Recv, Ok(50)),
            (Writev, Ok(10)),
            (Writev, Ok(12)),
        ];
        assert_eq!(marked(Lane::Proxy, &calls, 93), ["1 head", "3 body"]);
        assert_eq!(
            marked(Lane::Proxy, &calls, 100),
            ["1 head", "3 head, body"],
            "joined"
        );
        assert_eq!(
            marked(Lane::Proxy, &calls, 103),
            ["1 head", "3 head", "4 body"],
            "a head in two pieces"
        );
        assert_eq!(marked(Lane::Upstream, &calls, 50), ["2 head"]);
        assert_eq!(marked(Lane::Upstream, &calls, 0), [""; 0], "not known");
        let failed = [(Writev, Ok(93)), (Writev, Err(32))];
        assert_eq!(marked(Lane::Proxy, &failed, 93), ["0 head"]);
    }
}
