//! Counts the resets by process, cause and listener.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::SocketAddr;

use rstlab_cli::grouped;
use rstlab_witness::{Cause, Container};

use super::text::name;
use super::watched_reset::WatchedReset;
use crate::shared::table::table;
use crate::shared::wrapped::{columns_of_stderr, lines};

/// Most groups that are counted apart: on a busy machine every client may be one.
const MAX_GROUPS: usize = 1000;

/// Most groups that are printed.
const MAX_PRINTED: usize = 20;

/// How many resets there were of each kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    groups: BTreeMap<ResetGroup, u64>,
    /// Resets of further groups.
    others: u64,
}

/// What the resets of a group have in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct ResetGroup {
    process: Option<String>,
    container: Option<Container>,
    cause: Cause,
    listener: SocketAddr,
}

impl Tally {
    /// Counts a reset; an echo, which has no cause, is not counted. `ports` are those that are watched.
    pub(super) fn count(&mut self, reset: &WatchedReset, ports: &[u16]) {
        let Some(cause) = reset.cause else { return };
        let group = ResetGroup {
            process: reset.process().and_then(|process| process.name.clone()),
            container: reset.container.clone(),
            cause,
            listener: listener(reset, ports),
        };
        let has_room = self.groups.len() < MAX_GROUPS;
        match self.groups.get_mut(&group) {
            Some(count) => *count += 1,
            None if has_room => drop(self.groups.insert(group, 1)),
            None => self.others += 1,
        }
    }

    /// A table of the groups, the largest first; empty if there are none.
    pub(super) fn table(&self) -> String {
        if self.groups.is_empty() {
            return String::new();
        }
        let mut groups: Vec<_> = self.groups.iter().collect();
        // The sort is stable: groups of one size stay in their order.
        groups.sort_by_key(|(_, count)| Reverse(**count));
        let rows = groups.iter().take(MAX_PRINTED).map(|(group, count)| {
            let process = group.process.as_deref().map_or("?".to_owned(), name);
            let process = match &group.container {
                Some(container) => format!("{process}, {container}"),
                None => process,
            };
            [
                grouped(**count),
                group.cause.to_string(),
                group.listener.to_string(),
                process,
            ]
        });
        let header = ["resets", "cause", "listener", "process"];
        let table = table(header, rows, 2, 0..1);
        let mut text = lines(table, columns_of_stderr());
        let more = groups.iter().skip(MAX_PRINTED);
        let more = more.map(|(_, count)| **count).sum::<u64>() + self.others;
        if more > 0 {
            text += &format!("and {} more of other kinds\n", grouped(more));
        }
        text
    }
}

/// The address that the connection was made to: its port is watched, or is the lower one.
fn listener(reset: &WatchedReset, ports: &[u16]) -> SocketAddr {
    let (from, to) = (reset.from, reset.to.unwrap_or(reset.from));
    let is_watched = |address: SocketAddr| ports.contains(&address.port());
    match (is_watched(from), is_watched(to)) {
        (true, false) => from,
        (false, true) => to,
        _ if to.port() < from.port() => to,
        _ => from,
    }
}

#[cfg(test)]
mod tests {
    use rstlab_witness::Process;

    use super::super::text::tests::reset;
    use super::*;

    #[test]
    fn resets_are_counted_by_process_cause_and_listener() {
        let mut tally = Tally::default();
        let of_the_client = WatchedReset {
            from: "127.0.0.1:45678".parse().unwrap(),
            to: "127.0.0.1:8000".parse().ok(),
            cause: Some(Cause::LingerZero),
            sender: Some(Process { name: None, pid: 7 }),
            container: Some(Container {
                id: Some("3f2a1b0c4d5e".to_owned()),
                pod: None,
            }),
            ..reset()
        };
        let echo = WatchedReset {
            cause: None,
            ..reset()
        };
        for reset in [&reset(), &of_the_client, &echo, &reset()] {
            tally.count(reset, &[]);
        }
        let text = tally.table();
        let rows: Vec<Vec<_>> = text
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(
            rows,
            [
                vec!["resets", "cause", "listener", "process"],
                vec!["2", "unread-at-close", "127.0.0.1:8000", "gunicorn"],
                vec![
                    "1",
                    "linger-zero",
                    "127.0.0.1:8000",
                    "?,",
                    "container",
                    "3f2a1b0c4d5e"
                ],
            ]
        );
    }

    #[test]
    fn a_watched_port_is_the_listener_s_even_if_it_is_the_higher_one() {
        let of = |ports: &[u16]| listener(&reset(), ports).port();
        assert_eq!([of(&[]), of(&[8000]), of(&[45678])], [8000, 8000, 45678]);
    }

    #[test]
    fn a_tally_of_many_groups_stays_small_and_counts_the_others() {
        let mut tally = Tally::default();
        for port in 1..=2000 {
            let mut reset = reset();
            reset.from.set_port(port);
            tally.count(&reset, &[]);
        }
        assert_eq!(tally.groups.len(), MAX_GROUPS);
        let text = tally.table();
        assert_eq!(text.lines().count(), 1 + MAX_PRINTED + 1);
        assert!(
            text.ends_with("\nand 1,980 more of other kinds\n"),
            "{text}"
        );
    }
}
