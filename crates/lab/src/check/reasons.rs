use std::collections::HashMap;
use std::time::Duration;

use rstlab_witness::{Judged, Kernel, Ledger, Line, Place, Reason, Scope, monotonic_now};
use serde::Serialize;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::target::Address;

/// Most resets that are remembered.
const MOST: usize = 100_000;

/// Connections that the server reset first, for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReasonCount {
    /// The kernel's word for it (`include/net/rstreason.h`).
    pub reason: String,
    /// How many.
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
/// The kernel can't be asked; the text says why.
pub(super) fn listen(address: &Address) -> Result<Listening, String> {
    let Address::Tcp(address) = address else {
        return Err("a unix socket has no RST".to_owned());
    };
    let kernel = Kernel::open(Scope::Resets).map_err(|why| why.to_string())?;
    if !kernel.format().has_reason() {
        return Err("this kernel gives no reasons (Linux 6.10 and newer do)".to_owned());
    }
    let stop = CancellationToken::new();
    let task = tokio::spawn(collect(kernel, address.port(), stop.clone()));
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

async fn collect(mut kernel: Kernel, port: u16, stop: CancellationToken) -> Vec<FirstReset> {
    let (mut ledger, mut judged, mut lines) = (Ledger::default(), Vec::new(), Vec::new());
    let mut resets = Vec::new();
    loop {
        // A pipe that fails has no more to say; what it said is true all the same.
        let goes_on = tokio::select! {
            () = stop.cancelled() => false,
            read = kernel.read(&mut lines) => read.is_ok(),
        };
        if !goes_on {
            let _ = kernel.finish(&mut lines);
            see(&mut lines, port, &mut ledger, &mut judged);
            ledger.finish(&mut judged);
            resets.extend(judged.drain(..).filter_map(|one| first(one, port)));
            resets.truncate(MOST);
            return resets;
        }
        see(&mut lines, port, &mut ledger, &mut judged);
        ledger.due(monotonic_now(), &mut judged);
        resets.extend(judged.drain(..).filter_map(|one| first(one, port)));
        resets.truncate(MOST);
    }
}

fn see<E>(
    lines: &mut Vec<Result<Line, E>>,
    port: u16,
    ledger: &mut Ledger,
    judged: &mut Vec<Judged>,
) {
    for line in lines.drain(..) {
        if let Ok(Line::Reset(event)) = line {
            let ends = [Some(event.source), event.destination];
            if ends.iter().flatten().any(|end| end.port() == port) {
                ledger.see(event, judged);
            }
        }
    }
}

fn first(judged: Judged, port: u16) -> Option<FirstReset> {
    let event = judged.event;
    let by_server = judged.place == Place::First && event.source.port() == port;
    let destination = event.destination.filter(|_| by_server)?;
    Some(FirstReset {
        client_port: destination.port(),
        at: event.stamp.time,
        reason: event.reason?,
    })
}

/// For each group of connections, the reasons that the kernel gave for its resets, the most frequent first.
pub(super) fn of_groups(resets: Vec<FirstReset>, groups: &[Vec<Made>]) -> Vec<Vec<ReasonCount>> {
    // A port may have been used again: the last connection before the reset is meant.
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
