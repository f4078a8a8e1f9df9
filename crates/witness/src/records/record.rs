use std::mem;
use std::net::SocketAddr;
use std::time::Duration;

use rstlab_wire::{Moment, SysCall, nanos};
use serde::{Deserialize, Serialize};

use super::merged::merged;
use crate::{Conversation, Evidence, Pair, Process, Reason, Side, State, Verdict};

/// The version of the format; see `crates/lab/schema/record.json`.
pub const RECORD_VERSION: u32 = 1;

/// All that is known of one connection that was reset, or ended too early.
///
/// Proxy and upstream write one each; [`Record::merge`] makes them one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// [`RECORD_VERSION`].
    pub version: u32,
    /// Which run of which machine (`/proc/sys/kernel/random/boot_id`): times of another cannot be compared.
    pub boot_id: String,
    /// When the record was made, seconds since 1970.
    pub unix_time: u64,
    /// Who accepted the connection.
    pub server: SocketAddr,
    /// Who made it.
    pub client: SocketAddr,
    /// What the client asked for: `POST /`.
    pub request: Option<String>,
    /// What came of it for the one who asked: `whole`, `truncated`, `no-response`.
    pub outcome: Option<String>,
    /// What is known.
    pub evidence: Evidence,
    /// What that means.
    pub verdict: Verdict,
    /// What happened, in order of time.
    pub events: Vec<Event>,
    /// How many events there were besides.
    pub left_out: u64,
    /// The packets themselves, if they were captured. Not in the JSON: they have a file of their own, see
    /// [`Record::pcapng`].
    #[serde(skip)]
    pub packets: Option<Conversation>,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When, in nanoseconds of `CLOCK_MONOTONIC`.
    pub at_ns: u64,
    /// Where.
    pub lane: Lane,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// Where something happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lane {
    /// The one who asked.
    Client,
    /// The proxy.
    Proxy,
    /// Between proxy and upstream.
    Wire,
    /// The upstream.
    Upstream,
    /// The kernel, by its own word.
    Kernel,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum What {
    /// A system call.
    Call {
        /// Which.
        call: SysCall,
        /// What it returned: bytes, or zero. Absent if it failed.
        returned: Option<u64>,
        /// Its error number, if it failed.
        errno: Option<i32>,
    },
    /// A TCP segment.
    Packet {
        /// Who sent it.
        from: Side,
        /// As tcpdump writes them: `P.`
        flags: String,
        /// Its bytes.
        payload_bytes: u32,
        /// Number of its first byte, counted from the sender's SYN; the first byte of data is 1.
        seq: u32,
    },
    /// The kernel sent a RST.
    Reset {
        /// Who sent it.
        from: Side,
        /// Why.
        reason: Option<Reason>,
        /// In which state its socket was.
        state: Option<State>,
    },
    /// A call of its owner took a side out of ESTABLISHED or CLOSE-WAIT.
    Closed {
        /// Which side.
        from: Side,
        /// The state it came to.
        state: State,
        /// Whose call.
        by: Process,
    },
    /// A process was killed (SIGKILL).
    Killed {
        /// Which.
        process: Process,
    },
    /// Anything else, in words. At the very moment of a call in the same lane it is a remark on that call: `head`.
    Note {
        /// The words.
        text: String,
    },
}

/// Why two records are not two halves of one connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotOne {
    /// Other addresses.
    #[error("they are of different connections")]
    OtherConnection,
    /// Other clocks.
    #[error("they are of different machines, or of different runs of one")]
    OtherClock,
    /// The port was in use again.
    #[error("they are of different times: the port was in use again")]
    OtherTime,
}

impl Event {
    /// A call, as a tape has it.
    pub fn call(lane: Lane, moment: &Moment) -> Self {
        Self {
            at_ns: nanos(moment.at),
            lane,
            what: What::Call {
                call: moment.call,
                returned: moment.returned.ok(),
                errno: moment.returned.err(),
            },
        }
    }
}

impl Event {
    /// Something in words, at a time of `CLOCK_MONOTONIC`.
    pub fn note(at: Duration, lane: Lane, text: String) -> Self {
        Self {
            at_ns: nanos(at),
            lane,
            what: What::Note { text },
        }
    }
}

impl Record {
    /// The connection.
    pub fn pair(&self) -> Pair {
        Pair::new(self.server, self.client)
    }

    /// Puts two records of one connection together, and judges anew.
    ///
    /// # Errors
    /// They are not of one connection.
    pub fn merge(mut self, mut other: Self) -> Result<Self, NotOne> {
        if self.server != other.server || self.client != other.client {
            return Err(NotOne::OtherConnection);
        }
        if self.boot_id != other.boot_id {
            return Err(NotOne::OtherClock);
        }
        // Halves of one connection lie in each other's time; the next one on the same ports comes after it.
        if let (Some(a), Some(b)) = (self.span(), other.span())
            && (a.0 > b.1 || b.0 > a.1)
        {
            return Err(NotOne::OtherTime);
        }
        // Whichever comes first: what the client asked for and got is its own to tell.
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
        for lane in [
            Lane::Client,
            Lane::Proxy,
            Lane::Wire,
            Lane::Upstream,
            Lane::Kernel,
        ] {
            // Both may have seen the packets, or asked the kernel: whoever saw more tells it.
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

    /// From its first event to its last.
    fn span(&self) -> Option<(u64, u64)> {
        Some((self.events.first()?.at_ns, self.events.last()?.at_ns))
    }
}

#[cfg(test)]
mod tests {
    use rstlab_wire::{Call, Failure, Phase};

    use super::super::sample::{lazy, lazy_upstream};
    use super::*;
    use crate::{Cause, Counted, Counters, Ending, KernelWord, Known};

    /// One of the halves, which has seen no RST: its witnesses were asked before it came, or see another namespace.
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
        evidence.client = evidence.client.map(|client| crate::ClientSide {
            reset: None,
            ..client
        });
        half
    }

    /// Each half may be the one that saw the RST, and each may be named first.
    #[test]
    fn who_saw_the_reset_is_believed_in_either_order() {
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
