//! The captured packets of connections that the kernel's trace tells of: they hold the requests.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use rstlab_witness::{
    Conversation, Ending, Evidence, Packets, Pair, Place, ResetEvent, TraceEvent, Unavailable,
};
use tokio::task::JoinSet;

/// A capture beside the kernel's trace.
pub(super) struct Requests(Packets);

/// The packets of the connections of some resets.
#[derive(Default)]
pub(super) struct CapturedRequests(HashMap<Pair, Conversation>);

impl Requests {
    pub(super) fn open(ports: &[u16]) -> Result<Self, Unavailable> {
        Packets::of_ports(ports).map(Self)
    }

    /// The packets of the connections that the first resets among the events ended. All are asked for at once, because
    /// the capture answers within milliseconds, however many they are.
    pub(super) async fn of(&self, events: &[TraceEvent]) -> CapturedRequests {
        let firsts = events.iter().filter_map(|event| match event {
            TraceEvent::Reset(reset) if reset.place == Place::First => pair(&reset.event),
            _ => None,
        });
        let mut answers = JoinSet::new();
        for pair in firsts {
            let packets = self.0.clone();
            answers.spawn(async move { Some((pair, packets.conversation(pair).await?)) });
        }
        let answers = answers.join_all().await;
        CapturedRequests(answers.into_iter().flatten().collect())
    }
}

impl CapturedRequests {
    /// Method and path of the request that the RST met. If a new request met the close of a kept connection, adds that to
    /// the evidence, because the kernel's trace has no requests; it has everything else.
    pub(super) fn of(&self, reset: &ResetEvent, evidence: &mut Evidence) -> Option<String> {
        let conversation = self.0.get(&pair(reset)?)?;
        // A connection that began after the RST is the next one on the same ports, which are free at once.
        let began = conversation.packets().first()?.at;
        if began > reset.stamp.time {
            return None;
        }
        let ending = conversation.ending();
        let Ending::Reset {
            at_ns,
            from,
            request_unanswered,
            ..
        } = ending
        else {
            return conversation.request_until(reset.stamp.time);
        };
        if request_unanswered && from == reset.source {
            evidence.packets = Some(ending);
        }
        conversation.request_until(Duration::from_nanos(at_ns))
    }
}

fn pair(reset: &ResetEvent) -> Option<Pair> {
    let to: SocketAddr = reset.destination?;
    Some(Pair::new(reset.source, to))
}
