//! A record: all that is known of one connection.

use std::mem;
use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::VariantArray as _;

use super::merged::merged;
use super::role::Role;
use crate::evidence::{Event, Evidence, Lane, Pair, canonical};
use crate::packets::Conversation;
use crate::verdict::Verdict;

/// The version of the format; see `crates/lab/schema/record.json`.
pub const RECORD_VERSION: u32 = 1;

/// All that is known of one connection that was reset, or ended too early.
///
/// Proxy and upstream write one each; [`Record::merge`] makes them one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Record {
    /// [`RECORD_VERSION`].
    #[schemars(extend("const" = RECORD_VERSION))]
    pub version: u32,
    /// The boot of the machine (`/proc/sys/kernel/random/boot_id`): times of another cannot be compared.
    pub boot_id: String,
    /// When the record was made, seconds since 1970.
    pub unix_time: u64,
    /// Who accepted the connection.
    pub server: SocketAddr,
    /// Who connected.
    pub client: SocketAddr,
    /// What the client asked for: `POST /`; null where it is not known.
    pub request: Option<String>,
    /// What the client got: `whole`, `truncated`, `no-response`, `client-left`, `refused`, `abandoned`; null where it is
    /// not known.
    #[schemars(extend("enum" = ["whole", "truncated", "no-response", "client-left", "refused", "abandoned", null]))]
    pub outcome: Option<String>,
    /// The evidence.
    pub evidence: Evidence,
    /// What the evidence means.
    pub verdict: Verdict,
    /// What happened, in order of time.
    pub events: Vec<Event>,
    /// How many events were left out.
    pub left_out: u64,
    /// The packets themselves, if they were captured. Not in the JSON: they have a file of their own, see
    /// [`Record::pcapng`].
    #[serde(skip)]
    pub packets: Option<Conversation>,
}

/// Why two records are not the two halves of one connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotOne {
    /// The addresses of the records differ.
    #[error("they are of different connections")]
    OtherConnection,
    /// The clocks of the records cannot be compared.
    #[error("they are of different machines, or of different runs of one")]
    OtherClock,
    /// The records are of two connections that used the same ports one after the other.
    #[error("they are of different times: the port was in use again")]
    OtherTime,
}

impl Record {
    /// The connection.
    pub fn pair(&self) -> Pair {
        Pair::new(self.server, self.client)
    }

    /// The name of the file in which the program of this role keeps the record:
    /// `127.0.0.1_8000-127.0.0.1_45678.proxy.json`. No character in it means something to a shell.
    pub fn file_name(&self, role: Role) -> String {
        let end = |address: SocketAddr| canonical(address).to_string().replace(['[', ']'], "");
        let pair = format!("{}-{}", end(self.server), end(self.client)).replace(':', "_");
        format!("{pair}.{}.json", role.as_str())
    }

    /// Puts two records of one connection together, and judges anew.
    ///
    /// # Errors
    /// The records are not of one connection.
    pub fn merge(mut self, mut other: Self) -> Result<Self, NotOne> {
        if self.server != other.server || self.client != other.client {
            return Err(NotOne::OtherConnection);
        }
        if self.boot_id != other.boot_id {
            return Err(NotOne::OtherClock);
        }
        // The times of two halves overlap; the next connection on the same ports comes after both.
        if let (Some(a), Some(b)) = (self.span(), other.span())
            && (a.0 > b.1 || b.0 > a.1)
        {
            return Err(NotOne::OtherTime);
        }
        // The proxy's half knows what the client asked for and got, whichever half is named first.
        if self.evidence.client.is_none() && other.evidence.client.is_some() {
            mem::swap(&mut self, &mut other);
        }
        self.unix_time = self.unix_time.min(other.unix_time);
        self.evidence = merged(self.evidence, other.evidence);
        self.verdict = Verdict::of(&self.evidence, self.server);
        self.request = self.request.or(other.request);
        self.outcome = self.outcome.or(other.outcome);
        self.left_out = self.left_out.saturating_add(other.left_out);
        self.packets = self.packets.or(other.packets);
        let theirs = other.events.into_iter();
        for &lane in Lane::VARIANTS {
            // Both halves may have events of packets and kernel: those of the half that saw more are kept.
            let new: Vec<_> = theirs.clone().filter(|event| event.lane == lane).collect();
            let known = self.events.iter().filter(|event| event.lane == lane);
            if new.len() > known.count() {
                self.events.retain(|event| event.lane != lane);
                self.events.extend(new);
            }
        }
        self.events.sort_by_key(|event| event.at_ns);
        Ok(self)
    }

    /// The memory that the record takes, in bytes.
    pub(crate) fn memory(&self) -> usize {
        let texts = self.events.iter().map(|event| event.what.text_bytes());
        size_of::<Self>()
            + self.events.capacity() * size_of::<Event>()
            + texts.sum::<usize>()
            + self.request.as_ref().map_or(0, String::len)
            + self.packets.as_ref().map_or(0, Conversation::memory)
    }

    /// The times of its first and its last event.
    fn span(&self) -> Option<(u64, u64)> {
        Some((self.events.first()?.at_ns, self.events.last()?.at_ns))
    }
}

#[cfg(test)]
mod tests {
    use rstlab_wire::{Call, Failure, Phase};

    use super::super::sample::{lazy, lazy_upstream};
    use super::*;
    use crate::evidence::{ClientSide, Counted, Counters, Ending, KernelWord, Reason, State};
    use crate::verdict::{Cause, Known};

    /// A half that has seen no RST: its witnesses were asked before the RST came, or see another network namespace.
    fn blind(mut half: Record) -> Record {
        let server = half.server;
        let evidence = &mut half.evidence;
        evidence.packets = Some(Ending::Closed {
            at_ns: half.events[0].at_ns,
            from: server,
            whole: true,
        });
        evidence.kernel = evidence.kernel.clone().map(|word| KernelWord {
            reset: None,
            closed: None,
            ..word
        });
        evidence.counted = Some(Counted {
            change: Counters::default(),
            alone: true,
        });
        evidence.client = evidence.client.map(|client| ClientSide {
            reset: None,
            ..client
        });
        half
    }

    /// Each half may be the one that saw the RST, and each may be named first.
    #[test]
    fn the_half_that_saw_the_reset_is_believed_in_either_order() {
        let seen = lazy().evidence;
        let counted = Some(Counted {
            change: Counters {
                abort_on_data: 1,
                resets_sent: 1,
                ..Counters::default()
            },
            alone: true,
        });
        let [mut proxy, mut upstream] = [lazy(), lazy_upstream()];
        for half in [&mut proxy, &mut upstream] {
            half.evidence.packets = seen.packets;
            half.evidence.kernel = seen.kernel.clone();
            half.evidence.counted = counted;
        }
        for [proxy, upstream] in [
            [blind(proxy.clone()), upstream.clone()],
            [proxy, blind(upstream)],
        ] {
            let merged = proxy.clone().merge(upstream.clone()).unwrap();
            assert_eq!(merged, upstream.merge(proxy).unwrap());
            let Verdict { cause, known, .. } = merged.verdict;
            assert_eq!((cause, known), (Cause::DataAfterClose, Known::Proved));
            assert_eq!(merged.evidence.packets, seen.packets);
            assert_eq!(merged.evidence.kernel, seen.kernel);
            assert_eq!(merged.evidence.counted, counted);
        }
    }

    #[test]
    fn of_two_resets_the_one_that_tells_the_cause_is_believed() {
        let [mut early, mut late] = [lazy(), lazy_upstream()];
        late.evidence.kernel = early.evidence.kernel.clone();
        let echo = early.evidence.kernel.as_mut().unwrap();
        let echo = echo.reset.as_mut().unwrap();
        (echo.at_ns, echo.reason, echo.state) =
            (echo.at_ns - 1000, Some(Reason::Flags), Some(State::Listen));
        late.evidence.client = None;
        let failed = Failure {
            call: Call::Recv,
            errno: 104,
            phase: Phase::ReadingBody,
        };
        early.evidence.client.as_mut().unwrap().reset = Some(failed);
        for merged in [
            early.clone().merge(late.clone()).unwrap(),
            late.merge(early).unwrap(),
        ] {
            assert_eq!(merged.verdict.cause, Cause::DataAfterClose);
            assert_eq!(merged.verdict.reason, Some(Reason::AbortOnData));
            let client = merged.evidence.client.unwrap();
            assert_eq!(client.reset, Some(failed));
        }
    }
}
