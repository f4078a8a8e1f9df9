//! The judgement: from evidence to a [`Verdict`].

use std::net::SocketAddr;

use crate::{Cause, Counted, Ending, Evidence, Known, Level, Reason, Side, Verdict};

#[cfg(test)]
mod tests;

/// `EPIPE`.
const BROKEN_PIPE: i32 = 32;

/// When a FIN that nobody reads on has been acknowledged at the latest (`TCP_DELACK_MIN`): bytes that are sent
/// earlier find the closed socket in FIN-WAIT-1, later ones a time-wait. Of 100 bodies each, sent behind a small
/// response and its FIN: 35 ms after the head no late data, 60 ms after it 100.
const FIN_IS_ACKED_NS: u64 = 40_000_000;

/// What one kind of evidence says.
struct Opinion {
    cause: Cause,
    known: Known,
    sent_by: Option<Side>,
}

impl Verdict {
    /// Judges a connection that `server` had accepted. The strongest evidence decides; a weaker one that cannot be
    /// true at the same time makes the cause unknown.
    pub fn of(evidence: &Evidence, server: SocketAddr) -> Self {
        let case = Case { evidence, server };
        let (_, decided) = case.decided();
        let mut verdict = Self {
            cause: case.circumstances(&decided),
            known: decided.known,
            sent_by: decided.sent_by,
            reason: case.reason().cloned(),
            unread_bytes: evidence.server.map(|side| side.closed.unread_bytes),
            disagreement: case.disagreement(&decided),
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
        let case = Case {
            evidence: self,
            server,
        };
        case.decided().0
    }
}

struct Case<'a> {
    evidence: &'a Evidence,
    server: SocketAddr,
}

impl Case<'_> {
    fn decided(&self) -> (Level, Opinion) {
        let of = |level| move |opinion| (level, opinion);
        let kernel = || self.kernel().map(of(Level::Kernel));
        let packets = || self.packets().map(of(Level::Packets));
        let counters = || self.counters().map(of(Level::Counters));
        let strongest = kernel().or_else(packets).or_else(counters);
        strongest.unwrap_or_else(|| (Level::Sockets, self.sockets()))
    }

    fn side(&self, address: SocketAddr) -> Side {
        if address == self.server {
            Side::Server
        } else {
            Side::Client
        }
    }

    fn reason(&self) -> Option<&Reason> {
        self.evidence
            .kernel
            .as_ref()?
            .reset
            .as_ref()?
            .reason
            .as_ref()
    }

    /// The kernel says why, or, if it saw the close and no RST, that there was none.
    fn kernel(&self) -> Option<Opinion> {
        let word = self.evidence.kernel.as_ref()?;
        if let Some(reset) = &word.reset {
            let cause = Cause::of(reset.reason.as_ref(), reset.state.as_ref());
            let proves = !matches!(cause, Cause::Unknown | Cause::Gone);
            return proves.then(|| Opinion {
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

    /// What it means that nobody sent a RST; `None` if the client saw one after a whole response.
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

    /// The flags of the RST tell a close from an answer to a segment, and the FIN before it the two answers apart.
    ///
    /// Where packets are missing nothing is proved: the connection may have received data that is not there, and been
    /// closed or reset before.
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
                    // A close: with nothing received, nothing was unread.
                    (Cause::LingerZero, known)
                } else {
                    // Else the queue decides, and no packet shows it.
                    match self.evidence.server {
                        Some(told) if told.closed.unread_bytes > 0 => (Cause::UnreadAtClose, known),
                        Some(told) if told.linger_zero => (Cause::LingerZero, known),
                        // It told of an empty queue: the bytes came between that look and the close.
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
                // Who closes first before the response is whole is the one that cut it.
                (cause == Cause::NoReset || from == self.server).then_some(Opinion {
                    cause,
                    known: proved_if(whole),
                    sent_by: None,
                })
            }
            Ending::Open => None,
        }
    }

    /// Whether the client tells that it sent data there, though no packet shows it.
    fn client_sent_to(&self, address: SocketAddr) -> bool {
        let written = self.evidence.client.map_or(0, |it| it.written_bytes);
        written > 0 && address == self.server
    }

    /// What the weaker evidence says of a RST of which the packets do not tell enough; if it knows of none, the guess.
    fn weaker_than_packets(&self, guess: Cause) -> (Cause, Known) {
        let weaker = self.counters().unwrap_or_else(|| self.sockets());
        match weaker.cause {
            Cause::Unknown | Cause::NoReset | Cause::ClosedWithoutAnswer => {
                (guess, Known::Inferred)
            }
            cause => (cause, weaker.known),
        }
    }

    /// The counters, where only one kind of them moved.
    ///
    /// `TCPAbortOnData` moves for bytes after a close and for a close with `SO_LINGER` zero. The latter leaves
    /// ESTABLISHED, as the one who gets the RST does, the former has left it before: `EstabResets` moves by two or by
    /// one (`tcp_set_state`), with both ends in this namespace. 50 connections each: 100 and 50.
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
            [false, false, true] => Cause::LingerTwo,
            [false, true, false] => {
                let (aborted, resets) = (change.connections_aborted, change.abort_on_data);
                // Of many at once, some may be half in the change.
                if aborted.saturating_mul(2) >= resets.saturating_mul(3) {
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
        // A second RST is an echo, or somebody else's.
        let mine = alone
            && aborts.into_iter().fold(0, u64::saturating_add) <= 1
            && change.resets_sent <= 1;
        // What the server told of itself is better than what many moved together.
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

    /// The two sockets; always an opinion.
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
            // The FIN came before the RST (`tcp_reset`: CLOSE-WAIT gives EPIPE), and our bytes long after it.
            _ if self.is_broken_pipe()
                && client.is_some_and(|it| it.pause_ns >= FIN_IS_ACKED_NS) =>
            {
                inferred(Cause::LateData)
            }
            _ if self.is_broken_pipe() => inferred(Cause::DataAfterClose),
            Some(_) if client.is_some() => inferred(Cause::DataAfterClose),
            Some(told) if !told.response_whole => inferred(Cause::ClosedWithoutAnswer),
            // The server alone, with an empty queue, or the client alone.
            Some(_) | None => inferred(Cause::Unknown),
        };
        // A RST that came, and that this machine did not send.
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

    /// What was going on makes a close a keep-alive race, or the end of a killed process.
    fn circumstances(&self, decided: &Opinion) -> Cause {
        let by_a_close = matches!(
            decided.cause,
            Cause::UnreadAtClose
                | Cause::DataAfterClose
                | Cause::LateData
                | Cause::ClosedWithoutAnswer
                // Which of them, the sockets could not tell.
                | Cause::Unknown
        );
        let by_the_server = decided.sent_by != Some(Side::Client);
        if !by_a_close || !by_the_server {
            return decided.cause;
        }
        let killed = match (&self.evidence.kernel, self.evidence.server) {
            (Some(word), _) if word.killed => true,
            (_, told) => told.is_some_and(|told| told.killed),
        };
        let unanswered = |client: &crate::ClientSide| client.reused && client.read_bytes == 0;
        if killed {
            Cause::Killed
        } else if self.evidence.client.as_ref().is_some_and(unanswered) {
            Cause::KeepAliveRace
        } else {
            decided.cause
        }
    }

    /// What cannot be true at the same time.
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
        // `tcp_close`: unread bytes decide before anything else is looked at.
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
