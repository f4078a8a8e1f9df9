//! The causes, each with its word, its sentence, the kernel's reasons for it, and what to do about it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{Display, EnumCount, IntoStaticStr, VariantArray};

use super::known::Known;
use crate::evidence::{KernelReset, Reason, State};

/// Why a connection was reset or ended too early, as a user of the programs would put it.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
    Display,
    EnumCount,
    IntoStaticStr,
    VariantArray,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum Cause {
    /// Closed while received bytes lay unread.
    UnreadAtClose,
    /// Bytes came after the close.
    DataAfterClose,
    /// Bytes came after the close, when the kernel kept only a time-wait of the connection.
    LateData,
    /// Closed with `SO_LINGER` zero, or torn down from outside.
    LingerZero,
    /// Closed with `TCP_LINGER2` below zero.
    Linger2Negative,
    /// Disconnected with `connect(AF_UNSPEC)` while bytes were under way.
    Disconnect,
    /// The kernel had no memory, or too many closed connections to look after.
    Memory,
    /// The peer did not answer keepalive probes.
    SilentPeer,
    /// A kept connection was closed just when its next request came: the keep-alive race (RFC 9112 §9.3.1).
    KeepAliveRace,
    /// The process that held the connection was killed.
    Killed,
    /// Closed before the whole answer was out, with a FIN and no RST.
    ClosedWithoutAnswer,
    /// The connection ended with a FIN; nobody reset it.
    NoReset,
    /// Nobody listened on that port.
    Refused,
    /// A segment came for a connection that the listener does not know, or does not know any more.
    Gone,
    /// The evidence does not tell the cause, or its pieces disagree.
    Unknown,
}

impl Cause {
    /// Every cause.
    pub const ALL: [Self; Self::COUNT] = *Self::VARIANTS.as_array().expect("COUNT of them");

    /// What the kernel's reason for the *first* RST of a connection means. An echo has no cause of its own.
    ///
    /// "No socket" means that nobody listened: any segment to a port with a listener finds the listener
    /// (`__inet_lookup`).
    pub fn of(reason: Option<&Reason>, state: Option<&State>) -> Self {
        // The causes of an ordinary close come before the keep-alive race and the kill, which have the same reasons.
        let mut causes = Self::ALL.into_iter();
        let meant = reason.and_then(|reason| causes.find(|it| it.reasons().contains(reason)));
        meant
            .filter(|cause| *cause != Cause::Gone || state == Some(&State::Listen))
            .unwrap_or(Cause::Unknown)
    }

    /// What the kernel's words mean about the first RST of a connection.
    pub(crate) fn of_reset(reset: &KernelReset) -> Self {
        Self::of(reset.reason.as_ref(), reset.state.as_ref())
    }

    /// Whether a RST with this cause tells why its connection ended.
    pub(crate) fn is_told(self) -> bool {
        !matches!(self, Cause::Unknown | Cause::Gone)
    }

    /// Whether it is the cause of a RST; else the connection ended with a FIN.
    pub fn is_reset(self) -> bool {
        !matches!(self, Cause::NoReset | Cause::ClosedWithoutAnswer)
    }

    /// The kernel's reasons for the first RST of a connection that ends for this cause; none where there is no RST.
    pub fn reasons(self) -> &'static [Reason] {
        match self {
            Cause::UnreadAtClose => &[Reason::AbortOnClose],
            Cause::DataAfterClose => &[Reason::AbortOnData],
            Cause::LateData => &[Reason::TimewaitSocket],
            Cause::LingerZero => &[Reason::TcpState],
            Cause::Linger2Negative => &[Reason::AbortOnLinger],
            Cause::Disconnect => &[Reason::DisconnectWithData],
            Cause::Memory => &[Reason::AbortOnMemory],
            Cause::SilentPeer => &[Reason::KeepaliveTimeout],
            Cause::KeepAliveRace | Cause::Killed => &[
                Reason::AbortOnClose,
                Reason::AbortOnData,
                Reason::TimewaitSocket,
            ],
            Cause::Refused => &[Reason::NoSocket],
            Cause::Gone => &[Reason::Flags],
            Cause::ClosedWithoutAnswer | Cause::NoReset | Cause::Unknown => &[],
        }
    }

    /// Whether the kernel sends this RST for an ordinary close. The same RST follows from the close of a killed
    /// process, and from one that meets the next request.
    pub(crate) fn is_of_a_close(self) -> bool {
        matches!(
            self,
            Cause::UnreadAtClose | Cause::DataAfterClose | Cause::LateData
        )
    }

    /// The word for the cause, for tables and programs.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// One sentence for the cause, about the side that sent the RST.
    pub fn sentence(self) -> &'static str {
        match self {
            Cause::UnreadAtClose => "It closed while received bytes lay unread.",
            Cause::DataAfterClose => "It had closed; then more bytes came from the peer.",
            Cause::LateData => {
                "It had closed and its FIN was acknowledged; then more bytes came from the peer."
            }
            Cause::LingerZero => {
                "It closed with SO_LINGER zero, or closed the listening socket before it accepted, \
                 or the socket was destroyed from outside."
            }
            Cause::Linger2Negative => {
                "It closed with TCP_LINGER2 below zero: no wait for the peer's FIN."
            }
            Cause::Disconnect => "It disconnected (AF_UNSPEC) while bytes were under way.",
            Cause::Memory => "The kernel gave it up: too many closed connections, or no memory.",
            Cause::SilentPeer => "The peer did not answer keepalive probes.",
            Cause::KeepAliveRace => "It closed a kept connection just when the next request came.",
            Cause::Killed => "Its process was killed, and the kernel closed what it had open.",
            Cause::ClosedWithoutAnswer => {
                "It closed before its answer was whole: a FIN, and no RST."
            }
            Cause::NoReset => "The connection ended with a FIN: no RST.",
            Cause::Refused => {
                "Nobody listened on that port: a connect was refused, or a server that is gone was written to."
            }
            Cause::Gone => {
                "A segment came for a connection that is gone; what ended it was not seen."
            }
            Cause::Unknown => "What was seen of the connection does not tell the cause.",
        }
    }

    /// What to do about the cause, in one sentence.
    pub fn advice(self) -> &'static str {
        match self {
            Cause::UnreadAtClose => {
                "Let the server read the whole body, or half-close and read on before it closes (RFC 9112 §9.6)."
            }
            Cause::DataAfterClose | Cause::LateData => {
                "Let the server read the whole body, or half-close and read on before it closes (RFC 9112 §9.6); \
                 let the proxy send head and body in one write."
            }
            Cause::LingerZero => {
                "Find who sets SO_LINGER zero or destroys the socket: the server's settings, a load balancer's \
                 agent, ss -K."
            }
            Cause::Linger2Negative => "Find who sets TCP_LINGER2 below zero, and let it be.",
            Cause::Disconnect => {
                "Find who calls connect with AF_UNSPEC, and let it close the socket instead."
            }
            Cause::Memory => {
                "Raise net.ipv4.tcp_max_orphans or net.ipv4.tcp_mem, or find out why so many closed connections wait."
            }
            Cause::SilentPeer => {
                "Look whether the peer is gone, or something on the way forgets idle connections \
                 (NAT, conntrack, a firewall)."
            }
            Cause::KeepAliveRace => {
                "Let the server's idle timeout be longer than the proxy's, and repeat idempotent requests."
            }
            Cause::Killed => "Look for the OOM killer and for worker timeouts.",
            Cause::ClosedWithoutAnswer => {
                "Look into the server's log for the crash or the timeout."
            }
            Cause::NoReset => "Nothing is to be done.",
            Cause::Refused => "Start the server, or correct the address.",
            Cause::Gone => "Look earlier: this RST is an echo of what ended the connection.",
            Cause::Unknown => "Ask for stronger evidence: --witness kernel or packets.",
        }
    }

    /// One sentence for the cause where only packets tell of it, about the side that sent the RST.
    pub fn sentence_of_packets(self, known: Known) -> &'static str {
        match (self, known) {
            (Cause::UnreadAtClose, Known::Inferred) => {
                "It closed, and received bytes may have lain unread; SO_LINGER zero looks alike."
            }
            (Cause::Unknown, _) => "What was captured of its connection does not tell the cause.",
            (cause, _) => cause.sentence(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_cause_has_its_own_word_and_sentence_and_an_advice() {
        let words: HashSet<_> = Cause::ALL.iter().map(|cause| cause.as_str()).collect();
        let sentences: HashSet<_> = Cause::ALL.iter().map(|cause| cause.sentence()).collect();
        assert_eq!((words.len(), sentences.len()), (15, 15));
        assert!(Cause::ALL.iter().all(|cause| cause.advice().ends_with('.')));
    }

    #[test]
    fn each_kernel_s_reason_of_a_cause_means_that_cause() {
        for cause in Cause::ALL {
            for reason in cause.reasons() {
                let meant = Cause::of(Some(reason), Some(&State::Listen));
                let of_a_close = matches!(cause, Cause::KeepAliveRace | Cause::Killed);
                assert!(
                    if of_a_close {
                        meant.is_of_a_close()
                    } else {
                        meant == cause
                    },
                    "{cause} {reason}"
                );
            }
        }
    }

    #[test]
    fn json_has_the_word_of_a_cause() {
        for cause in Cause::ALL {
            let json = serde_json::to_string(&cause).unwrap();
            assert_eq!(json, format!("\"{cause}\""));
        }
    }

    #[test]
    fn the_reason_tcp_flags_means_gone_only_for_a_listening_socket() {
        let of = |state| Cause::of(Some(&Reason::Flags), Some(&state));
        assert_eq!(of(State::Listen), Cause::Gone);
        assert_eq!(of(State::SynReceived), Cause::Unknown);
    }

    #[test]
    fn a_kernel_without_reasons_proves_nothing() {
        assert_eq!(Cause::of(None, Some(&State::Close)), Cause::Unknown);
    }
}
