use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Known, Reason, State};

/// Why a connection was reset or ended too early, as a user of the programs would put it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// Closed while received bytes lay unread.
    UnreadAtClose,
    /// Bytes came after the close.
    DataAfterClose,
    /// Bytes came after the close, when only a time-wait was left of the connection.
    LateData,
    /// Closed with `SO_LINGER` zero, or torn down from outside.
    LingerZero,
    /// Closed with `TCP_LINGER2` below zero.
    #[serde(rename = "linger2-negative")]
    LingerTwo,
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
    /// Nobody reset it: it ended with a FIN.
    NoReset,
    /// Nobody listened on that port.
    Refused,
    /// The segment was for a connection that the listener does not know (any more).
    Gone,
    /// The kernel does not say, or says something else.
    Unknown,
}

impl Cause {
    /// Every cause.
    pub const ALL: [Cause; 15] = [
        Cause::UnreadAtClose,
        Cause::DataAfterClose,
        Cause::LateData,
        Cause::LingerZero,
        Cause::LingerTwo,
        Cause::Disconnect,
        Cause::Memory,
        Cause::SilentPeer,
        Cause::KeepAliveRace,
        Cause::Killed,
        Cause::ClosedWithoutAnswer,
        Cause::NoReset,
        Cause::Refused,
        Cause::Gone,
        Cause::Unknown,
    ];

    /// What the kernel's word for the *first* RST of a connection means (an echo has no cause of its own).
    ///
    /// "No socket" means that nobody listened: any segment to a port with a listener finds the listener
    /// (`__inet_lookup`).
    pub fn of(reason: Option<&Reason>, state: Option<&State>) -> Self {
        let Some(reason) = reason else {
            return Cause::Unknown;
        };
        match reason {
            Reason::AbortOnClose => Cause::UnreadAtClose,
            Reason::AbortOnData => Cause::DataAfterClose,
            Reason::TimewaitSocket => Cause::LateData,
            Reason::TcpState => Cause::LingerZero,
            Reason::AbortOnLinger => Cause::LingerTwo,
            Reason::DisconnectWithData => Cause::Disconnect,
            Reason::AbortOnMemory => Cause::Memory,
            Reason::KeepaliveTimeout => Cause::SilentPeer,
            Reason::NoSocket => Cause::Refused,
            Reason::Flags if state == Some(&State::Listen) => Cause::Gone,
            Reason::Flags
            | Reason::NotSpecified
            | Reason::InvalidAckSequence
            | Reason::Paws
            | Reason::TooOldAck
            | Reason::AckUnsentData
            | Reason::OldAck
            | Reason::InvalidSyn
            | Reason::Other(_) => Cause::Unknown,
        }
    }

    /// One word for it, for tables and programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::UnreadAtClose => "unread-at-close",
            Cause::DataAfterClose => "data-after-close",
            Cause::LateData => "late-data",
            Cause::LingerZero => "linger-zero",
            Cause::LingerTwo => "linger2-negative",
            Cause::Disconnect => "disconnect",
            Cause::Memory => "memory",
            Cause::SilentPeer => "silent-peer",
            Cause::KeepAliveRace => "keep-alive-race",
            Cause::Killed => "killed",
            Cause::ClosedWithoutAnswer => "closed-without-answer",
            Cause::NoReset => "no-reset",
            Cause::Refused => "refused",
            Cause::Gone => "gone",
            Cause::Unknown => "unknown",
        }
    }

    /// One sentence for it, about the side that sent the RST.
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
            Cause::LingerTwo => {
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
            Cause::Unknown => "The kernel's word does not tell the cause.",
        }
    }

    /// One sentence for it where nothing but packets tells, about the side that sent the RST.
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

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_cause_has_a_word_and_a_sentence_of_its_own() {
        let words: HashSet<_> = Cause::ALL.iter().map(|cause| cause.as_str()).collect();
        let sentences: HashSet<_> = Cause::ALL.iter().map(|cause| cause.sentence()).collect();
        assert_eq!((words.len(), sentences.len()), (15, 15));
    }

    #[test]
    fn json_has_the_same_word() {
        for cause in Cause::ALL {
            let json = serde_json::to_string(&cause).unwrap();
            assert_eq!(json, format!("\"{cause}\""));
        }
    }

    #[test]
    fn the_same_word_means_another_thing_in_another_state() {
        let of = |state| Cause::of(Some(&Reason::Flags), Some(&state));
        assert_eq!(of(State::Listen), Cause::Gone);
        assert_eq!(of(State::SynReceived), Cause::Unknown);
    }

    #[test]
    fn a_kernel_without_reasons_proves_nothing() {
        assert_eq!(Cause::of(None, Some(&State::Close)), Cause::Unknown);
    }
}
