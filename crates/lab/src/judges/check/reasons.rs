//! The kernel's reasons for the resets of a check.

use std::collections::HashMap;
use std::time::Duration;

use rstlab_witness::{KernelTrace, Place, Reason, Scope, TraceEvent};
use schemars::JsonSchema;
use serde::Serialize;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::shared::target::Address;

/// The most resets that are kept.
const MAX_RESETS: usize = 100_000;

/// Connections that the server reset first, for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ReasonCount {
    /// The kernel's word for it (`include/net/rstreason.h`).
    pub reason: String,
    /// How many.
    #[schemars(range(min = 1))]
    pub count: u64,
}

/// The first RST of a connection, sent by the server.
#[derive(Debug)]
pub(super) struct FirstReset {
    client_port: u16,
    at: Duration,
    reason: Reason,
}

/// The client's end of a connection, and when it was made, on `CLOCK_MONOTONIC`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Made {
    pub(super) port: u16,
    pub(super) at: Duration,
}

/// Listens to the kernel while a check runs.
#[derive(Debug)]
pub(super) struct Listening {
    stop: DropGuard,
    task: JoinHandle<Vec<FirstReset>>,
}

/// Begins to listen.
///
/// # Errors
/// The kernel's trace is unavailable; the text says why.
pub(super) fn listen(address: &Address) -> Result<Listening, String> {
    let Address::Tcp(address) = address else {
        return Err("a unix socket has no RST".to_owned());
    };
    let scope = Scope::Resets(&[address.port()]);
    let trace = KernelTrace::open(scope).map_err(|why| why.to_string())?;
    if !trace.format().has_reason() {
        return Err("this kernel gives no reasons (Linux 6.10 and newer do)".to_owned());
    }
    let stop = CancellationToken::new();
    let task = tokio::spawn(collect(trace, address.port(), stop.clone()));
    Ok(Listening {
        stop: stop.drop_guard(),
        task,
    })
}

impl Listening {
    /// Stops, and gives what the kernel said.
    pub(super) async fn finish(self) -> Vec<FirstReset> {
        drop(self.stop);
        match self.task.await {
            Ok(resets) => resets,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}

async fn collect(mut trace: KernelTrace, port: u16, stop: CancellationToken) -> Vec<FirstReset> {
    let (mut events, mut resets) = (Vec::new(), Vec::new());
    loop {
        // After a failure the pipe gives no more events; those that it gave count all the same.
        let goes_on = tokio::select! {
            () = stop.cancelled() => false,
            read = trace.next(&mut events) => read.is_ok(),
        };
        if !goes_on {
            let _ = trace.finish(&mut events);
            add(&mut events, port, &mut resets);
            return resets;
        }
        add(&mut events, port, &mut resets);
    }
}

/// Adds the first RSTs among the events that the server sent.
fn add(events: &mut Vec<TraceEvent>, port: u16, resets: &mut Vec<FirstReset>) {
    let found = events.drain(..).filter_map(|event| match event {
        TraceEvent::Reset(reset) if reset.place == Place::First => Some(reset.event),
        _ => None,
    });
    let by_server = found.filter(|event| event.source.port() == port);
    resets.extend(by_server.filter_map(|event| {
        Some(FirstReset {
            client_port: event.destination?.port(),
            at: event.stamp.time,
            reason: event.reason?,
        })
    }));
    resets.truncate(MAX_RESETS);
}

/// For each group of connections, the reasons that the kernel gave for its resets, the most frequent first.
pub(super) fn of_groups(resets: Vec<FirstReset>, groups: &[Vec<Made>]) -> Vec<Vec<ReasonCount>> {
    // A port may have been used again: a reset belongs to the last connection before it.
    let mut made: HashMap<u16, Vec<(Duration, usize)>> = HashMap::new();
    for (group, connections) in groups.iter().enumerate() {
        for one in connections {
            made.entry(one.port).or_default().push((one.at, group));
        }
    }
    let mut counts: Vec<HashMap<String, u64>> = vec![HashMap::new(); groups.len()];
    for reset in resets {
        let same = made.get(&reset.client_port).into_iter().flatten();
        let before = same.filter(|(at, _)| *at <= reset.at).max();
        if let Some((_, group)) = before {
            *counts[*group].entry(reset.reason.to_string()).or_default() += 1;
        }
    }
    counts.into_iter().map(sorted).collect()
}

/// Adds the counts of several clients up.
pub(super) fn sum<'a>(counts: impl Iterator<Item = &'a ReasonCount>) -> Vec<ReasonCount> {
    let mut sums: HashMap<String, u64> = HashMap::new();
    for one in counts {
        *sums.entry(one.reason.clone()).or_default() += one.count;
    }
    sorted(sums)
}

fn sorted(counts: HashMap<String, u64>) -> Vec<ReasonCount> {
    let counts = counts.into_iter();
    let mut counts: Vec<_> = counts
        .map(|(reason, count)| ReasonCount { reason, count })
        .collect();
    counts.sort_by(|a, b| (b.count, &a.reason).cmp(&(a.count, &b.reason)));
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_belongs_to_the_last_connection_before_it() {
        let at = Duration::from_millis;
        let made = |port, millis| Made {
            port,
            at: at(millis),
        };
        let reset = |port, millis, reason| FirstReset {
            client_port: port,
            at: at(millis),
            reason,
        };
        let groups = [vec![made(1, 10), made(2, 10)], vec![made(1, 50)]];
        let resets = vec![
            reset(1, 20, Reason::AbortOnClose),
            reset(2, 60, Reason::AbortOnClose),
            reset(1, 60, Reason::AbortOnData),
            reset(1, 5, Reason::AbortOnData),
            reset(3, 60, Reason::AbortOnData),
        ];
        let count = |reason: &str, count| ReasonCount {
            reason: reason.to_owned(),
            count,
        };
        let expected = [
            vec![count("TCP_ABORT_ON_CLOSE", 2)],
            vec![count("TCP_ABORT_ON_DATA", 1)],
        ];
        assert_eq!(of_groups(resets, &groups), expected);
        assert_eq!(
            sum(expected.iter().flatten()),
            [
                count("TCP_ABORT_ON_CLOSE", 2),
                count("TCP_ABORT_ON_DATA", 1)
            ]
        );
    }
}
