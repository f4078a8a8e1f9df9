//! One RST as text.

use rstlab_witness::{Known, Owner, Process, Reason, State};

use super::watched_reset::WatchedReset;
use crate::shared::printable::printable;
use crate::shared::wrapped::wrapped;

/// The most characters of a process's name: more than the kernel's `TASK_COMM_LEN`, 16.
const MAX_NAME: usize = 32;

/// The most characters of a request: more than the 64 bytes that are captured of a segment.
const MAX_REQUEST: usize = 80;

/// Blanks before a continued line.
pub(super) const INDENT: &str = "                 ";

/// A line with what the kernel said or the packet showed, and one with what it means; with `http` a third one with the
/// request.
pub(super) fn lines(reset: &WatchedReset, http: bool) -> String {
    let time = reset.time.split_once('T').map_or("", |(_, time)| time);
    let to = reset.to.map_or("?".to_owned(), |to| to.to_string());
    let reason = reset.reason.as_ref().map(Reason::as_str);
    let reason = reason.or(reset.flags.as_deref()).unwrap_or("no-reason");
    let mut head = format!("{time} {} {} -> {to} {reason}", reset.place, reset.from);
    if let Some(state @ (State::Listen | State::TimeWait)) = &reset.state {
        head += &format!(" in {state}");
    }
    if let Some(cause) = reset.cause {
        head += &format!(" = {cause}");
    }
    if reset.known == Some(Known::Inferred) {
        head += ", inferred";
    }
    let meaning = format!("{}{}", who(reset), reset.explanation);
    let text = wrapped(&head, "", INDENT) + &wrapped(&meaning, INDENT, INDENT);
    if !http || reset.cause.is_none() {
        return text;
    }
    let request = reset.request.as_ref().map_or_else(
        || "not in the captured packets.".to_owned(),
        |request| printable(request, MAX_REQUEST),
    );
    text + &wrapped(&format!("Request: {request}"), INDENT, INDENT)
}

/// What to do about a cause.
pub(super) fn advice(advice: &str) -> String {
    wrapped(&format!("What to do: {advice}"), INDENT, INDENT)
}

fn who(reset: &WatchedReset) -> String {
    let place = (reset.container.as_ref()).map_or(String::new(), |it| format!(", {it}"));
    match (&reset.sender, &reset.owner) {
        (Some(sender), _) => format!("Sent by {}{place}. ", named(sender)),
        (None, Some(Owner { process, others: 0 })) => {
            format!("Port of {}{place}. ", named(process))
        }
        (None, Some(Owner { process, others })) => {
            format!("Port of {}{place} and {others} more. ", named(process))
        }
        (None, None) => String::new(),
    }
}

fn named(process: &Process) -> String {
    match process.name.as_deref().map(name).unwrap_or_default() {
        name if name.is_empty() => format!("pid {}", process.pid),
        name => format!("{name}, pid {}", process.pid),
    }
}

/// A process's name. A process chooses its own name, and the text goes to a terminal.
pub(super) fn name(name: &str) -> String {
    printable(name, MAX_NAME)
}

#[cfg(test)]
pub(super) mod tests {
    use rstlab_witness::{Cause, Container, Level, Place};

    use super::*;
    use crate::shared::wrapped::COLUMNS;

    pub(in crate::watches::watch) fn reset() -> WatchedReset {
        WatchedReset {
            time: "2025-01-02T03:04:05.123456Z".to_owned(),
            monotonic_ns: 1,
            witness: Level::Kernel,
            place: Place::First,
            from: "127.0.0.1:8000".parse().unwrap(),
            to: "127.0.0.1:45678".parse().ok(),
            reason: Some(Reason::AbortOnClose),
            state: Some(State::Close),
            flags: None,
            cause: Some(Cause::UnreadAtClose),
            known: Some(Known::Proved),
            explanation: "It closed while received bytes lay unread.",
            sender: Some(Process {
                name: Some("gunicorn".to_owned()),
                pid: 1234,
            }),
            owner: None,
            container: None,
            request: None,
            cpu: Some(0),
        }
    }

    #[test]
    fn a_reset_is_told_with_its_sender_and_its_cause() {
        let text = "03:04:05.123456Z first 127.0.0.1:8000 -> 127.0.0.1:45678 TCP_ABORT_ON_CLOSE = unread-at-close\n\
                    \u{20}                Sent by gunicorn, pid 1234. It closed while received bytes lay unread.\n";
        assert_eq!(lines(&reset(), false), text);
    }

    #[test]
    fn a_reset_in_a_capture_is_told_with_its_flags_and_an_inferred_cause() {
        let reset = WatchedReset {
            reason: None,
            state: None,
            flags: Some("[R.]".to_owned()),
            known: Some(Known::Inferred),
            ..reset()
        };
        let text = lines(&reset, false);
        assert!(
            text.contains(" 127.0.0.1:45678 [R.] = unread-at-close, inferred\n"),
            "{text}"
        );
    }

    #[test]
    fn an_echo_of_a_listener_is_told_with_the_owner_of_its_port() {
        let reset = WatchedReset {
            place: Place::Echo,
            to: None,
            reason: Some(Reason::Flags),
            state: Some(State::Listen),
            cause: None,
            sender: None,
            owner: Some(Owner {
                process: Process { name: None, pid: 7 },
                others: 2,
            }),
            ..reset()
        };
        let text = lines(&reset, false);
        assert!(
            text.contains(" echo 127.0.0.1:8000 -> ? TCP_FLAGS in TCP_LISTEN\n"),
            "{text}"
        );
        assert!(text.contains(" Port of pid 7 and 2 more. It"), "{text}");
    }

    #[test]
    fn long_addresses_and_names_fit_a_terminal() {
        let long = "[2001:db8:1111:2222:3333:4444:5555:6666]:65535";
        let text = lines(
            &WatchedReset {
                from: long.parse().unwrap(),
                to: long.parse().ok(),
                explanation: Cause::LingerZero.sentence(),
                sender: Some(Process {
                    name: Some("\x1b[31m\n".to_owned()),
                    pid: u32::MAX,
                }),
                ..reset()
            },
            false,
        );
        assert!(
            text.lines().all(|line| line.chars().count() <= COLUMNS),
            "{text}"
        );
        assert!(text.contains("Sent by ?[31m?, pid"), "{text}");
    }

    #[test]
    fn a_container_and_a_request_are_told() {
        let reset = WatchedReset {
            container: Some(Container {
                id: Some("3f2a1b0c4d5e".to_owned()),
                pod: None,
            }),
            request: Some("POST /\x1b[31m".to_owned()),
            ..reset()
        };
        let text = lines(&reset, true);
        let parts = [
            "Sent by gunicorn, pid 1234, container 3f2a1b0c4d5e. It closed",
            "\n                 Request: POST /?[31m\n",
        ];
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
        let unknown = WatchedReset {
            request: None,
            ..reset
        };
        assert!(lines(&unknown, true).ends_with("Request: not in the captured packets.\n"));
        assert!(!lines(&unknown, false).contains("Request"));
    }
}
