//! All causes that the evidence allows, each with what speaks for and against it.

use std::net::SocketAddr;

use serde::Serialize;

use super::cause::Cause;
use super::judge::{BROKEN_PIPE, FIN_IS_ACKED_NS, Verdict};
use super::known::Known;
use crate::evidence::{
    ClientSide, Counted, Counters, Ending, Evidence, KernelWord, Reason, ServerSide,
};

/// A cause that the evidence allows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ranked {
    /// The cause.
    pub cause: Cause,
    /// How it is known. Only the first of a ranking can be more than inferred.
    pub known: Known,
    /// What speaks for it, the strongest evidence first.
    pub speaks_for: Vec<String>,
    /// What speaks against it, the strongest evidence first.
    pub speaks_against: Vec<String>,
}

/// Ranks the causes for which anything speaks, of the end of a connection that `server` had accepted. The first is the
/// cause of [`Verdict::of`], also if that is [`Cause::Unknown`]: then the evidence does not decide between the others.
pub fn ranking(evidence: &Evidence, server: SocketAddr) -> Vec<Ranked> {
    let verdict = Verdict::of(evidence, server);
    let mut clues = Clues::default();
    clues.of_kernel(evidence.kernel.as_ref());
    clues.of_packets(evidence.packets);
    clues.of_counters(evidence.counted);
    clues.of_server(evidence.server);
    clues.of_client(evidence.client);
    let scored = Cause::ALL.map(|cause| clues.about(cause));
    let (first, mut others): (Vec<_>, Vec<_>) = (scored.into_iter())
        .filter(|(_, it)| it.cause == verdict.cause || !it.speaks_for.is_empty())
        .partition(|(_, it)| it.cause == verdict.cause);
    // The sort is stable: of two causes with the same score, the more frequent one stays first.
    others.sort_by_key(|(score, _)| -score);
    let mut ranked: Vec<_> = first.into_iter().chain(others).map(|(_, it)| it).collect();
    if let [first, others @ ..] = &mut ranked[..] {
        first.known = verdict.known;
        if first.cause == Cause::Unknown {
            first.speaks_for.push(match verdict.disagreement {
                Some(text) => format!("the evidence disagrees: {text}"),
                None if others.is_empty() => "nothing was seen that tells a cause".to_owned(),
                None => "nothing that was seen decides which".to_owned(),
            });
        }
    }
    ranked
}

/// Causes of a RST that exclude each other.
const RESETS: [Cause; 9] = [
    Cause::UnreadAtClose,
    Cause::DataAfterClose,
    Cause::LateData,
    Cause::LingerZero,
    Cause::Linger2Negative,
    Cause::Disconnect,
    Cause::Memory,
    Cause::SilentPeer,
    Cause::Refused,
];

/// Causes of a RST that a close sends, and of one that answers bytes after a close.
const SENT_BY_CLOSE: [Cause; 2] = [Cause::UnreadAtClose, Cause::LingerZero];
const ANSWERS: [Cause; 2] = [Cause::DataAfterClose, Cause::LateData];

/// Ends without a RST.
const NO_RESET: [Cause; 2] = [Cause::NoReset, Cause::ClosedWithoutAnswer];

/// How much a clue counts: one of a stronger kind of evidence counts more than all weaker ones together.
const KERNEL: i32 = 64;
const PACKETS: i32 = 16;
const COUNTERS: i32 = 4;
const SOCKETS: i32 = 1;

/// What the evidence shows, strongest first.
#[derive(Default)]
struct Clues(Vec<Clue>);

struct Clue {
    weight: i32,
    text: String,
    speaks_for: Vec<Cause>,
    speaks_against: Vec<Cause>,
}

impl Clues {
    fn add(&mut self, weight: i32, text: impl Into<String>, pro: &[Cause], contra: &[Cause]) {
        self.0.push(Clue {
            weight,
            text: text.into(),
            speaks_for: pro.to_vec(),
            speaks_against: contra.to_vec(),
        });
    }

    fn about(&self, cause: Cause) -> (i32, Ranked) {
        let mut score = 0;
        let mut ranked = Ranked {
            cause,
            known: Known::Inferred,
            speaks_for: Vec::new(),
            speaks_against: Vec::new(),
        };
        for clue in &self.0 {
            if clue.speaks_for.contains(&cause) {
                score += clue.weight;
                ranked.speaks_for.push(clue.text.clone());
            }
            if clue.speaks_against.contains(&cause) {
                score -= clue.weight;
                ranked.speaks_against.push(clue.text.clone());
            }
        }
        (score, ranked)
    }

    fn of_kernel(&mut self, word: Option<&KernelWord>) {
        let Some(word) = word else { return };
        if word.killed {
            let text = "the thread that closed the connection had been killed";
            self.add(KERNEL, text, &[Cause::Killed], &[]);
        } else if word.closed.is_some() && !word.incomplete {
            let text = "the thread that closed the connection had not been killed";
            self.add(KERNEL, text, &[], &[Cause::Killed]);
        }
        if let Some(reset) = &word.reset {
            let cause = Cause::of_reset(reset);
            if cause == Cause::Unknown {
                return;
            }
            let reason = reset.reason.as_ref().map_or("", Reason::as_str);
            let mut others: Vec<_> = RESETS.into_iter().filter(|it| *it != cause).collect();
            others.extend(NO_RESET);
            if !cause.is_of_a_close() {
                others.extend([Cause::Killed, Cause::KeepAliveRace]);
            }
            self.add(
                KERNEL,
                format!("the kernel's reason {reason}"),
                &[cause],
                &others,
            );
        } else if word.closed.is_some() && !word.incomplete {
            let text = "the kernel tells of a close, and of no RST";
            self.add(KERNEL, text, &NO_RESET, &RESETS);
        }
    }

    fn of_packets(&mut self, ending: Option<Ending>) {
        let weigh = |whole| if whole { PACKETS } else { SOCKETS };
        match ending {
            Some(Ending::Reset {
                answers,
                refuses,
                fin_before,
                fin_acked_before,
                received_bytes,
                request_unanswered,
                whole,
                ..
            }) => {
                let weight = weigh(whole);
                if refuses {
                    self.add(weight, "the RST answers a SYN", &[Cause::Refused], &[]);
                    return;
                }
                if answers {
                    let text = "the RST has no ACK flag: it answers a segment";
                    let pro = [&ANSWERS[..], &[Cause::Gone]].concat();
                    self.add(weight, text, &pro, &SENT_BY_CLOSE);
                } else {
                    let text = "the RST has the ACK flag: a close sent it";
                    self.add(weight, text, &SENT_BY_CLOSE, &ANSWERS);
                }
                if answers && fin_before {
                    let [unacknowledged, acknowledged] = ANSWERS;
                    let (text, pro, contra) = if fin_acked_before {
                        (
                            "its FIN had been acknowledged",
                            acknowledged,
                            unacknowledged,
                        )
                    } else {
                        (
                            "its FIN had not been acknowledged",
                            unacknowledged,
                            acknowledged,
                        )
                    };
                    self.add(weight, text, &[pro], &[contra]);
                }
                if received_bytes > 0 {
                    let text = format!("{received_bytes} bytes had reached the sender of the RST");
                    let pro = [Cause::UnreadAtClose, Cause::DataAfterClose, Cause::LateData];
                    self.add(weight, text, &pro, &[]);
                } else if whole {
                    let text = "no data had reached the sender of the RST";
                    let contra = [Cause::UnreadAtClose, Cause::DataAfterClose, Cause::LateData];
                    self.add(weight, text, &[Cause::LingerZero], &contra);
                }
                if request_unanswered {
                    let text = "a new request on a used connection met the RST, and no answer";
                    self.add(weight, text, &[Cause::KeepAliveRace], &[]);
                }
            }
            Some(Ending::Closed { whole, .. }) => {
                let text = "the packets show a FIN and no RST";
                self.add(weigh(whole), text, &NO_RESET, &RESETS);
            }
            Some(Ending::Open) | None => {}
        }
    }

    fn of_counters(&mut self, counted: Option<Counted>) {
        let Some(Counted { change, alone }) = counted else {
            return;
        };
        let (weight, whose) = if alone {
            (COUNTERS, "no other connection of ours lived meanwhile")
        } else {
            (SOCKETS, "other connections may have moved it")
        };
        let Counters {
            abort_on_close,
            abort_on_data,
            abort_on_linger,
            resets_sent,
            ..
        } = change;
        let after_close = if change.tells_linger_zero() {
            Cause::LingerZero
        } else {
            Cause::DataAfterClose
        };
        let moved = [
            ("TCPAbortOnClose", abort_on_close, Cause::UnreadAtClose),
            ("TCPAbortOnData", abort_on_data, after_close),
            ("TCPAbortOnLinger", abort_on_linger, Cause::Linger2Negative),
        ];
        for (name, by, cause) in moved {
            if by > 0 {
                let text = format!("{name} moved by {by}; {whose}");
                self.add(weight, text, &[cause], &[]);
            } else if alone {
                self.add(weight, format!("{name} did not move"), &[], &[cause]);
            }
        }
        if resets_sent > 0 && moved.iter().all(|(_, by, _)| *by == 0) {
            let text = format!("OutRsts moved by {resets_sent}, and no counter of aborts; {whose}");
            self.add(weight, text, &[Cause::LateData, Cause::Refused], &[]);
        }
    }

    fn of_server(&mut self, told: Option<ServerSide>) {
        let Some(told) = told else { return };
        let unread = told.closed.unread_bytes;
        if unread > 0 {
            let text = format!("{unread} bytes lay unread when the server closed");
            let contra = [Cause::DataAfterClose, Cause::LateData, Cause::LingerZero];
            self.add(SOCKETS, text, &[Cause::UnreadAtClose], &contra);
        } else {
            let text = "nothing lay unread right before the server closed";
            self.add(SOCKETS, text, &ANSWERS, &[Cause::UnreadAtClose]);
        }
        if told.linger_zero {
            let text = "the server closed with SO_LINGER zero";
            self.add(SOCKETS, text, &[Cause::LingerZero], &[]);
        } else {
            let text = "the server did not set SO_LINGER zero";
            self.add(SOCKETS, text, &[], &[Cause::LingerZero]);
        }
        if told.killed {
            let text = "the process that answered was killed";
            self.add(SOCKETS, text, &[Cause::Killed], &[]);
        } else {
            let text = "the process that answered closed the connection itself";
            self.add(SOCKETS, text, &[], &[Cause::Killed]);
        }
        if !told.response_whole {
            let text = "the server closed before its answer was whole";
            let pro = [Cause::ClosedWithoutAnswer, Cause::Killed];
            self.add(SOCKETS, text, &pro, &[Cause::NoReset]);
        }
    }

    fn of_client(&mut self, client: Option<ClientSide>) {
        let Some(client) = client else { return };
        let by_a_close = [Cause::KeepAliveRace, Cause::Killed];
        match client.reset {
            Some(failure) if failure.errno == BROKEN_PIPE => {
                let text = "a write failed with EPIPE: a FIN had come before the RST";
                let contra = [&SENT_BY_CLOSE[..], &NO_RESET].concat();
                self.add(
                    SOCKETS,
                    text,
                    &[&ANSWERS[..], &by_a_close].concat(),
                    &contra,
                );
                let pause = client.pause_ns / 1_000_000;
                let text = format!("the last write came {pause} ms after the one before");
                let [soon, late] = ANSWERS;
                if client.pause_ns >= FIN_IS_ACKED_NS {
                    self.add(SOCKETS, text, &[late], &[soon]);
                } else {
                    self.add(SOCKETS, text, &[soon], &[late]);
                }
            }
            Some(_) => {
                let text = "a call failed with a reset";
                let pro = [
                    Cause::UnreadAtClose,
                    Cause::DataAfterClose,
                    Cause::LingerZero,
                    Cause::KeepAliveRace,
                    Cause::Killed,
                ];
                self.add(SOCKETS, text, &pro, &NO_RESET);
            }
            None if client.response_whole => {
                let text = "no call of the client failed, and its response was whole";
                let contra = [&RESETS[..], &by_a_close, &[Cause::ClosedWithoutAnswer]].concat();
                self.add(SOCKETS, text, &[Cause::NoReset], &contra);
            }
            None => {
                let text = "the response was cut, and no call of the client failed";
                let pro = [&[Cause::ClosedWithoutAnswer][..], &by_a_close].concat();
                let contra = [&RESETS[..], &[Cause::NoReset]].concat();
                self.add(SOCKETS, text, &pro, &contra);
            }
        }
        let race = [Cause::KeepAliveRace];
        match (client.reused, client.read_bytes) {
            (false, _) => self.add(SOCKETS, "the connection was fresh", &[], &race),
            (true, 0) => {
                let text = "the connection was reused, and no byte of the answer came";
                self.add(SOCKETS, text, &race, &[]);
            }
            (true, _) => self.add(SOCKETS, "the answer had begun to come", &[], &race),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{SERVER, client as cut, kernel as traced, server};
    use super::*;
    use crate::evidence::State;

    /// A client that had no byte of its response.
    fn client(errno: i32, reused: bool) -> Option<ClientSide> {
        cut(Some(errno)).map(|client| ClientSide {
            reused,
            read_bytes: 0,
            ..client
        })
    }

    fn kernel(reason: Reason, killed: bool) -> Option<KernelWord> {
        traced(SERVER, Some(reason), State::Close).map(|word| KernelWord { killed, ..word })
    }

    fn causes(ranked: &[Ranked]) -> Vec<Cause> {
        ranked.iter().map(|it| it.cause).collect()
    }

    fn all() -> Vec<Evidence> {
        let clients = [
            None,
            client(104, false),
            client(104, true),
            client(32, false),
        ];
        let kernels = [
            None,
            kernel(Reason::AbortOnClose, false),
            kernel(Reason::AbortOnData, true),
            kernel(Reason::TcpState, false),
            kernel(Reason::Flags, false),
        ];
        let mut all = Vec::new();
        for client in clients {
            for server in [None, server(0), server(22)] {
                for kernel in &kernels {
                    all.push(Evidence {
                        client,
                        server,
                        kernel: kernel.clone(),
                        ..Evidence::default()
                    });
                }
            }
        }
        all
    }

    #[test]
    fn a_ranking_begins_with_the_verdict_and_has_no_cause_twice() {
        for evidence in all() {
            let ranked = ranking(&evidence, SERVER);
            let Verdict { cause, known, .. } = Verdict::of(&evidence, SERVER);
            assert_eq!((ranked[0].cause, ranked[0].known), (cause, known));
            assert!(
                ranked.iter().all(|it| !it.speaks_for.is_empty()),
                "{ranked:?}"
            );
            let mut causes = causes(&ranked);
            causes.sort_by_key(|cause| cause.as_str());
            causes.dedup();
            assert_eq!(causes.len(), ranked.len());
        }
    }

    /// A line in a log tells no more than this: errno, phase, and whether the connection was reused.
    #[test]
    fn a_reused_connection_points_to_the_race_and_a_fresh_one_to_unread_bytes() {
        let reused = ranking(
            &Evidence {
                client: client(104, true),
                ..Evidence::default()
            },
            SERVER,
        );
        assert_eq!(reused[0].cause, Cause::KeepAliveRace);
        assert_eq!(
            reused[0].speaks_for,
            [
                "a call failed with a reset",
                "the connection was reused, and no byte of the answer came"
            ]
        );
        let fresh = ranking(
            &Evidence {
                client: client(104, false),
                ..Evidence::default()
            },
            SERVER,
        );
        let expected = [
            Cause::Unknown,
            Cause::UnreadAtClose,
            Cause::DataAfterClose,
            Cause::LingerZero,
            Cause::Killed,
            Cause::KeepAliveRace,
        ];
        assert_eq!(causes(&fresh), expected);
        assert_eq!(fresh[5].speaks_against, ["the connection was fresh"]);
    }

    #[test]
    fn stronger_evidence_speaks_first_and_rules_weaker_guesses_out() {
        let evidence = Evidence {
            client: client(104, false),
            server: server(0),
            kernel: kernel(Reason::AbortOnClose, false),
            ..Evidence::default()
        };
        let ranked = ranking(&evidence, SERVER);
        assert_eq!(ranked[0].cause, Cause::UnreadAtClose);
        assert_eq!(ranked[0].known, Known::Proved);
        let reason = "the kernel's reason TCP_ABORT_ON_CLOSE";
        assert_eq!(ranked[0].speaks_for[0], reason);
        let unread = "nothing lay unread right before the server closed";
        assert_eq!(ranked[0].speaks_against, [unread]);
        let after = ranked.iter().find(|it| it.cause == Cause::DataAfterClose);
        assert_eq!(after.unwrap().speaks_against, [reason]);
    }

    #[test]
    fn a_disagreement_is_said_and_both_causes_are_named() {
        let evidence = Evidence {
            server: server(22),
            kernel: kernel(Reason::AbortOnData, false),
            ..Evidence::default()
        };
        let ranked = ranking(&evidence, SERVER);
        let expected = [Cause::Unknown, Cause::DataAfterClose, Cause::UnreadAtClose];
        assert_eq!(causes(&ranked), expected);
        let text = &ranked[0].speaks_for[0];
        assert!(text.starts_with("the evidence disagrees: "), "{text}");
    }

    #[test]
    fn without_evidence_nothing_but_unknown_is_left() {
        let ranked = ranking(&Evidence::default(), SERVER);
        assert_eq!(causes(&ranked), [Cause::Unknown]);
    }
}
