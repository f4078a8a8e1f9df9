//! The judgement: from evidence to a [`Verdict`].

use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cause::Cause;
use super::known::Known;
use crate::evidence::{ClientSide, Counted, Ending, Evidence, KernelReset, Level, Reason, Side};

/// `EPIPE`.
pub(super) const BROKEN_PIPE: i32 = 32;

/// A FIN is acknowledged after this time at the latest (`TCP_DELACK_MIN`): bytes that are sent earlier find the closed
/// socket in FIN-WAIT-1, later bytes find a time-wait. Measured with 100 bodies each, sent after a small response and
/// its FIN: none was late data 35 ms after the head, all were 60 ms after it.
pub(super) const FIN_IS_ACKED_NS: u64 = 40_000_000;

/// Why a connection ended as it did, and how that is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Verdict {
    /// Why the connection ended.
    pub cause: Cause,
    /// How the cause is known.
    pub known: Known,
    /// Who sent the RST; null if that is not known, or there was none.
    pub sent_by: Option<Side>,
    /// The kernel's reason for the RST; null if it gives none, or was not asked.
    pub reason: Option<Reason>,
    /// Bytes that lay unread when the server closed; null if the server does not tell.
    pub unread_bytes: Option<u64>,
    /// How the evidence disagrees, if it does. The cause is then unknown.
    pub disagreement: Option<String>,
}

/// The cause according to one kind of evidence.
struct Opinion {
    cause: Cause,
    known: Known,
    sent_by: Option<Side>,
}

impl Verdict {
    /// A cause that only the program's own sockets tell.
    pub fn inferred(cause: Cause) -> Self {
        Self {
            cause,
            known: Known::Inferred,
            sent_by: None,
            reason: None,
            unread_bytes: None,
            disagreement: None,
        }
    }

    /// Judges a connection that `server` had accepted. The strongest evidence decides; weaker evidence that cannot be
    /// true at the same time makes the cause unknown.
    pub fn of(evidence: &Evidence, server: SocketAddr) -> Self {
        let judge = Judge { evidence, server };
        let (_, decided) = judge.decided();
        let mut verdict = Self {
            cause: judge.circumstances(&decided),
            known: decided.known,
            sent_by: decided.sent_by,
            reason: judge.reason().cloned(),
            unread_bytes: evidence.server.map(|side| side.closed.unread_bytes),
            disagreement: judge.disagreement(&decided),
        };
        if verdict.disagreement.is_some() {
            verdict.cause = Cause::Unknown;
            verdict.known = Known::Inferred;
        }
        verdict
    }
}

impl Evidence {
    /// The kind of evidence that decides the verdict on a connection that `server` had accepted.
    pub fn decided_by(&self, server: SocketAddr) -> Level {
        let evidence = self;
        Judge { evidence, server }.decided().0
    }
}

struct Judge<'a> {
    evidence: &'a Evidence,
    server: SocketAddr,
}

impl Judge<'_> {
    fn decided(&self) -> (Level, Opinion) {
        let of = |level| move |opinion| (level, opinion);
        let kernel = || self.kernel().map(of(Level::Kernel));
        let packets = || self.packets().map(of(Level::Packets));
        let counters = || self.counters().map(of(Level::Counters));
        let strongest = kernel().or_else(packets).or_else(counters);
        strongest.unwrap_or_else(|| (Level::Sockets, self.sockets()))
    }

    fn side(&self, address: SocketAddr) -> Side {
        Side::of(address, self.server)
    }

    fn kernel_reset(&self) -> Option<&KernelReset> {
        self.evidence.kernel.as_ref()?.reset.as_ref()
    }

    fn reason(&self) -> Option<&Reason> {
        self.kernel_reset()?.reason.as_ref()
    }

    /// The opinion of the kernel's trace: the reason for the RST, or, if the trace has the close and no RST, that there
    /// was none.
    fn kernel(&self) -> Option<Opinion> {
        let word = self.evidence.kernel.as_ref()?;
        if let Some(reset) = &word.reset {
            let cause = Cause::of_reset(reset);
            return cause.is_told().then(|| Opinion {
                cause,
                known: Known::Proved,
                sent_by: Some(self.side(reset.from)),
            });
        }
        let cause = self.without_reset()?;
        (word.closed.is_some() && !word.incomplete).then_some(Opinion {
            cause,
            known: Known::Proved,
            sent_by: None,
        })
    }

    /// The cause if nobody sent a RST; `None` if the client saw one after a whole response.
    fn without_reset(&self) -> Option<Cause> {
        let whole = match (self.evidence.client, self.evidence.server) {
            (Some(client), _) => Some(client.response_whole),
            (None, told) => told.map(|told| told.response_whole),
        };
        let reset = self.evidence.client.and_then(|client| client.reset);
        match (whole, reset) {
            (Some(false), _) => Some(Cause::ClosedWithoutAnswer),
            (_, None) => Some(Cause::NoReset),
            (_, Some(_)) => None,
        }
    }

    /// The opinion of the packets. The flags of the RST tell a close from an answer to a segment; a FIN before the RST,
    /// and whether that FIN was acknowledged, tells data after a close from late data.
    ///
    /// If packets are missing, nothing is proved: the missing ones may have brought data, or an earlier end.
    fn packets(&self) -> Option<Opinion> {
        let proved_if = |whole| {
            if whole {
                Known::Proved
            } else {
                Known::Inferred
            }
        };
        match *self.evidence.packets.as_ref()? {
            Ending::Reset {
                from,
                answers,
                refuses,
                fin_before,
                fin_acked_before,
                received_bytes,
                whole,
                ..
            } => {
                let (known, data) = (proved_if(whole), received_bytes > 0);
                let (cause, known) = if refuses {
                    (Cause::Refused, known)
                } else if answers && data && (fin_before || whole) {
                    let late = fin_acked_before.then_some(Cause::LateData);
                    (late.unwrap_or(Cause::DataAfterClose), known)
                } else if answers {
                    self.weaker_than_packets(Cause::Gone)
                } else if !data && whole {
                    // A close sent the RST; nothing was received, so nothing was unread.
                    (Cause::LingerZero, known)
                } else {
                    // Whether bytes were unread at the close decides, and no packet shows that.
                    match self.evidence.server {
                        Some(told) if told.closed.unread_bytes > 0 => (Cause::UnreadAtClose, known),
                        Some(told) if told.linger_zero => (Cause::LingerZero, known),
                        // If the server told of an empty queue, the bytes came between its look and its close.
                        Some(_) | None if data || self.client_sent_to(from) => {
                            (Cause::UnreadAtClose, Known::Inferred)
                        }
                        Some(_) | None => self.weaker_than_packets(Cause::Unknown),
                    }
                };
                Some(Opinion {
                    cause,
                    known,
                    sent_by: Some(self.side(from)),
                })
            }
            Ending::Closed { from, whole, .. } => {
                let cause = self.without_reset().unwrap_or(Cause::ClosedWithoutAnswer);
                // The side that closes first, before the response is whole, cuts the response.
                (cause == Cause::NoReset || from == self.server).then_some(Opinion {
                    cause,
                    known: proved_if(whole),
                    sent_by: None,
                })
            }
            Ending::Open => None,
        }
    }

    /// Whether the client tells that it sent data to this address, though no packet shows the data.
    fn client_sent_to(&self, address: SocketAddr) -> bool {
        let written = self.evidence.client.map_or(0, |it| it.written_bytes);
        written > 0 && address == self.server
    }

    /// The cause from weaker evidence, for a RST of which the packets do not tell enough; if the weaker evidence knows
    /// of no RST, `guess`.
    fn weaker_than_packets(&self, guess: Cause) -> (Cause, Known) {
        let weaker = self.counters().unwrap_or_else(|| self.sockets());
        match weaker.cause {
            Cause::Unknown | Cause::NoReset | Cause::ClosedWithoutAnswer => {
                (guess, Known::Inferred)
            }
            cause => (cause, weaker.known),
        }
    }

    /// The opinion of the counters, if only one of them moved.
    fn counters(&self) -> Option<Opinion> {
        let Counted { change, alone } = self.evidence.counted?;
        self.evidence
            .client
            .is_none_or(|client| client.reset.is_some())
            .then_some(())?;
        let told = self.evidence.server;
        let aborts = [
            change.abort_on_close,
            change.abort_on_data,
            change.abort_on_linger,
        ];
        let cause = match aborts.map(|count| count > 0) {
            [true, false, false] => Cause::UnreadAtClose,
            [false, false, true] => Cause::Linger2Negative,
            [false, true, false] => {
                if change.tells_linger_zero() {
                    Cause::LingerZero
                } else {
                    Cause::DataAfterClose
                }
            }
            [false, false, false] if change.resets_sent > 0 && self.is_broken_pipe() => {
                Cause::LateData
            }
            _ => return None,
        };
        // A second RST is an echo, or another connection's.
        let mine = alone
            && aborts.into_iter().fold(0, u64::saturating_add) <= 1
            && change.resets_sent <= 1;
        // What the server told of itself is better than a counter that many connections moved.
        (mine || told.is_none()).then_some(Opinion {
            cause,
            known: if mine {
                Known::Counted
            } else {
                Known::Inferred
            },
            sent_by: None,
        })
    }

    /// The opinion of the two sockets, which always have one.
    fn sockets(&self) -> Opinion {
        let inferred = |cause| Opinion {
            cause,
            known: Known::Inferred,
            sent_by: None,
        };
        let client = self.evidence.client;
        if client.is_some_and(|client| client.reset.is_none()) {
            return inferred(self.without_reset().unwrap_or(Cause::Unknown));
        }
        if self.evidence.server_was_reset() && client.is_none() {
            return Opinion {
                sent_by: Some(Side::Client),
                ..inferred(Cause::Unknown)
            };
        }
        let mut opinion = match self.evidence.server {
            Some(told) if told.closed.unread_bytes > 0 => inferred(Cause::UnreadAtClose),
            Some(told) if told.linger_zero => inferred(Cause::LingerZero),
            // The FIN came before the RST (`tcp_reset`: CLOSE-WAIT gives EPIPE), and the client's bytes long after the
            // FIN.
            _ if self.is_broken_pipe()
                && client.is_some_and(|it| it.pause_ns >= FIN_IS_ACKED_NS) =>
            {
                inferred(Cause::LateData)
            }
            _ if self.is_broken_pipe() => inferred(Cause::DataAfterClose),
            Some(_) if client.is_some() => inferred(Cause::DataAfterClose),
            Some(told) if !told.response_whole => inferred(Cause::ClosedWithoutAnswer),
            // Only the server tells, of an empty queue, or only the client tells.
            Some(_) | None => inferred(Cause::Unknown),
        };
        if opinion.cause == Cause::Unknown
            && let Some(reset) = self.kernel_reset()
            && Cause::of_reset(reset) == Cause::Gone
        {
            opinion.cause = Cause::Gone;
            opinion.sent_by = Some(self.side(reset.from));
        }
        // The client saw a RST that this machine did not send, so the server on another machine sent it.
        let kernel = self.evidence.kernel.as_ref();
        if client.is_some() && kernel.is_some_and(|it| it.reset.is_none() && !it.incomplete) {
            opinion.sent_by = Some(Side::Server);
        }
        opinion
    }

    fn is_broken_pipe(&self) -> bool {
        let failure = self.evidence.client.and_then(|client| client.reset);
        failure.is_some_and(|failure| failure.errno == BROKEN_PIPE)
    }

    /// The cause, after a look at the circumstances of the close: it may be part of a keep-alive race, or of the end of
    /// a killed process.
    fn circumstances(&self, decided: &Opinion) -> Cause {
        // If the cause is unknown, the sockets could not tell which kind of close it was.
        let by_a_close = decided.cause.is_of_a_close()
            || matches!(decided.cause, Cause::ClosedWithoutAnswer | Cause::Unknown);
        let by_the_server = decided.sent_by != Some(Side::Client);
        if !by_a_close || !by_the_server {
            return decided.cause;
        }
        let killed = match (&self.evidence.kernel, self.evidence.server) {
            (Some(word), _) if word.killed => true,
            (_, told) => told.is_some_and(|told| told.killed),
        };
        let unanswered = |client: ClientSide| client.reused && client.read_bytes == 0;
        let seen_unanswered = matches!(
            self.evidence.packets,
            Some(Ending::Reset {
                request_unanswered: true,
                ..
            })
        );
        if killed {
            Cause::Killed
        } else if seen_unanswered || self.evidence.client.is_some_and(unanswered) {
            Cause::KeepAliveRace
        } else {
            decided.cause
        }
    }

    /// Names two pieces of evidence that cannot be true at the same time, if there are any.
    fn disagreement(&self, decided: &Opinion) -> Option<String> {
        let Evidence {
            client,
            server,
            counted,
            packets,
            kernel,
        } = self.evidence;
        let reason = self.reason();
        let by_server = decided.sent_by == Some(Side::Server);
        // Unread bytes decide before the kernel looks at anything else (`tcp_close`).
        if let Some(told) = server
            && told.closed.unread_bytes > 0
            && by_server
            && matches!(
                decided.cause,
                Cause::DataAfterClose | Cause::LateData | Cause::LingerZero
            )
        {
            return Some(format!(
                "the server closed with {} bytes unread, but {} says {}",
                told.closed.unread_bytes,
                if reason.is_some() {
                    "the kernel"
                } else {
                    "a packet"
                },
                decided.cause,
            ));
        }
        if let (
            Some(reason),
            Some(Ending::Reset {
                from,
                answers,
                whole: true,
                ..
            }),
        ) = (reason, packets)
            && kernel.as_ref()?.reset.as_ref()?.from == *from
        {
            let closes = matches!(reason, Reason::AbortOnClose | Reason::TcpState);
            let answered = matches!(reason, Reason::AbortOnData | Reason::TimewaitSocket);
            if (closes && *answers) || (answered && !*answers) {
                return Some(format!(
                    "the kernel says {reason}, but the RST's ACK flag says {}",
                    if *answers {
                        "an answer to a segment"
                    } else {
                        "a close"
                    },
                ));
            }
        }
        if let Some(Counted {
            change,
            alone: true,
        }) = counted
        {
            let (closes, others) = (change.abort_on_close, change.abort_on_data);
            let wrong = match reason {
                Some(Reason::AbortOnClose) => closes == 0 && others > 0,
                Some(Reason::AbortOnData) => others == 0 && closes > 0,
                _ => false,
            };
            if wrong {
                return Some(format!(
                    "the kernel says {}, but TCPAbortOnClose moved by {closes} and TCPAbortOnData by {others}",
                    reason.map_or("", Reason::as_str),
                ));
            }
        }
        if decided.cause == Cause::ClosedWithoutAnswer
            && client.is_some_and(|client| client.reset.is_some())
        {
            return Some(format!(
                "the client saw a RST, but {} none",
                if kernel.is_some() {
                    "the kernel sent"
                } else {
                    "the packets show"
                },
            ));
        }
        None
    }
}

#[cfg(test)]
mod tests;
