use rstlab_witness::Known;

use super::Record;
use super::record::{Owner, Process};
use crate::printable::printable;
use crate::wrapped::wrapped;

/// Most characters of a process's name (`TASK_COMM_LEN` and some).
const MOST_NAME: usize = 32;

/// Blanks before what goes on.
pub(super) const INDENT: &str = "                 ";

impl Record {
    /// A line with what the kernel said or the packet showed, and one with what it means.
    pub(super) fn text(&self) -> String {
        let time = self.time.split_once('T').map_or("", |(_, time)| time);
        let to = self.to.map_or("?".to_owned(), |to| to.to_string());
        let reason = self.reason.as_deref().or(self.flags.as_deref());
        let reason = reason.unwrap_or("no-reason");
        let mut head = format!("{time} {} {} -> {to} {reason}", self.place, self.from);
        if let Some(state @ ("TCP_LISTEN" | "TCP_TIME_WAIT")) = self.state.as_deref() {
            head += " in ";
            head += state;
        }
        if let Some(cause) = self.cause {
            head += &format!(" = {cause}");
        }
        if self.known == Some(Known::Inferred.as_str()) {
            head += ", inferred";
        }
        let mut text = wrapped(&head, "", INDENT);
        text += &wrapped(
            &format!("{}{}", self.who(), self.explanation),
            INDENT,
            INDENT,
        );
        text
    }

    fn who(&self) -> String {
        match (&self.sender, &self.owner) {
            (Some(sender), _) => format!("Sent by {}. ", named(sender)),
            (None, Some(Owner { process, others: 0 })) => format!("Port of {}. ", named(process)),
            (None, Some(Owner { process, others })) => {
                format!("Port of {} and {others} more. ", named(process))
            }
            (None, None) => String::new(),
        }
    }
}

fn named(process: &Process) -> String {
    // A process chooses its name, and this goes to a terminal.
    let name = process.name.as_deref().unwrap_or_default();
    let name = printable(name, MOST_NAME);
    match name.as_str() {
        "" => format!("pid {}", process.pid),
        name => format!("{name}, pid {}", process.pid),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::wrapped::COLUMNS;

    pub(in crate::watch) fn record() -> Record {
        Record {
            time: "2025-01-02T03:04:05.123456Z".to_owned(),
            monotonic_ns: 1,
            witness: "kernel",
            place: "first",
            from: "127.0.0.1:8000".parse().unwrap(),
            to: "127.0.0.1:45678".parse().ok(),
            reason: Some("TCP_ABORT_ON_CLOSE".to_owned()),
            state: Some("TCP_CLOSE".to_owned()),
            flags: None,
            cause: Some("unread-at-close"),
            known: Some("proved"),
            explanation: "It closed while received bytes lay unread.",
            sender: Some(Process {
                name: Some("gunicorn".to_owned()),
                pid: 1234,
            }),
            owner: None,
            cpu: Some(0),
        }
    }

    #[test]
    fn says_what_and_why() {
        let text = "03:04:05.123456Z first 127.0.0.1:8000 -> 127.0.0.1:45678 TCP_ABORT_ON_CLOSE = unread-at-close\n\
                    \u{20}                Sent by gunicorn, pid 1234. It closed while received bytes lay unread.\n";
        assert_eq!(record().text(), text);
    }

    #[test]
    fn a_packet_shows_its_flags_and_may_leave_doubt() {
        let record = Record {
            reason: None,
            state: None,
            flags: Some("[R.]".to_owned()),
            known: Some("inferred"),
            ..record()
        };
        let text = record.text();
        assert!(
            text.contains(" 127.0.0.1:45678 [R.] = unread-at-close, inferred\n"),
            "{text}"
        );
    }

    #[test]
    fn a_listener_names_nobody_and_its_port_has_an_owner() {
        let record = Record {
            place: "echo",
            to: None,
            reason: Some("TCP_FLAGS".to_owned()),
            state: Some("TCP_LISTEN".to_owned()),
            cause: None,
            sender: None,
            owner: Some(Owner {
                process: Process { name: None, pid: 7 },
                others: 2,
            }),
            ..record()
        };
        let text = record.text();
        assert!(
            text.contains(" echo 127.0.0.1:8000 -> ? TCP_FLAGS in TCP_LISTEN\n"),
            "{text}"
        );
        assert!(text.contains(" Port of pid 7 and 2 more. It"), "{text}");
    }

    #[test]
    fn long_addresses_and_names_fit_a_terminal() {
        let long = "[2001:db8:1111:2222:3333:4444:5555:6666]:65535";
        let text = Record {
            from: long.parse().unwrap(),
            to: long.parse().ok(),
            explanation: rstlab_witness::Cause::LingerZero.sentence(),
            sender: Some(Process {
                name: Some("\x1b[31m\n".to_owned()),
                pid: u32::MAX,
            }),
            ..record()
        }
        .text();
        assert!(
            text.lines().all(|line| line.chars().count() <= COLUMNS),
            "{text}"
        );
        assert!(text.contains("Sent by ?[31m?, pid"), "{text}");
    }
}
