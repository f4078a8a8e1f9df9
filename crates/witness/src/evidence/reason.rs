//! The kernel's own words for a RST and for the state of its socket.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Makes an enum of the kernel's words that keeps a word that is not in the list. strum does not serve: its default
/// variant does not give such a word back as a `&str`.
macro_rules! kernel_words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        #[serde(from = "String", into = "String")]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
            /// A word that is not in this list.
            Other(Box<str>),
        }

        impl $name {
            /// The word as the kernel prints it.
            pub fn as_str(&self) -> &str {
                match self {
                    $($name::$variant => $word,)*
                    $name::Other(word) => word,
                }
            }
        }

        impl FromStr for $name {
            type Err = Infallible;

            fn from_str(word: &str) -> Result<Self, Infallible> {
                Ok(match word {
                    $($word => $name::$variant,)*
                    other => $name::Other(other.into()),
                })
            }
        }

        impl From<String> for $name {
            fn from(word: String) -> Self {
                let Ok(known) = word.parse();
                known
            }
        }

        impl From<$name> for String {
            fn from(word: $name) -> Self {
                word.as_str().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

kernel_words! {
    /// Why the kernel sent a RST, in its own words (`include/net/rstreason.h`).
    Reason {
        /// The kernel did not say.
        NotSpecified = "NOT_SPECIFIED",
        /// No socket for the segment: nobody listens, and no such connection exists.
        NoSocket = "NO_SOCKET",
        /// An ACK of something that was never sent.
        InvalidAckSequence = "TCP_INVALID_ACK_SEQUENCE",
        /// A timestamp too old (RFC 7323).
        Paws = "TCP_RFC7323_PAWS",
        /// An ACK too old.
        TooOldAck = "TCP_TOO_OLD_ACK",
        /// An ACK of bytes not yet sent.
        AckUnsentData = "TCP_ACK_UNSENT_DATA",
        /// Flags that do not fit the state; on a listening socket: an ACK of no connection it knows.
        Flags = "TCP_FLAGS",
        /// An ACK of old bytes.
        OldAck = "TCP_OLD_ACK",
        /// Bytes came for a connection that its owner had closed.
        AbortOnData = "TCP_ABORT_ON_DATA",
        /// Bytes came for a closed connection that only waited for the peer's FIN.
        TimewaitSocket = "TCP_TIMEWAIT_SOCKET",
        /// A SYN where none belongs.
        InvalidSyn = "INVALID_SYN",
        /// `close()` while bytes lay unread.
        AbortOnClose = "TCP_ABORT_ON_CLOSE",
        /// `close()` with `TCP_LINGER2` below zero.
        AbortOnLinger = "TCP_ABORT_ON_LINGER",
        /// Too many orphans, or no memory for them.
        AbortOnMemory = "TCP_ABORT_ON_MEMORY",
        /// `close()` with `SO_LINGER` zero, or the socket was destroyed.
        TcpState = "TCP_STATE",
        /// The peer did not answer keepalive probes.
        KeepaliveTimeout = "TCP_KEEPALIVE_TIMEOUT",
        /// `connect(AF_UNSPEC)` with bytes under way.
        DisconnectWithData = "TCP_DISCONNECT_WITH_DATA",
    }
}

kernel_words! {
    /// State of the socket a RST was sent for, at that moment (`include/net/tcp_states.h`).
    State {
        /// ESTABLISHED.
        Established = "TCP_ESTABLISHED",
        /// SYN-SENT.
        SynSent = "TCP_SYN_SENT",
        /// SYN-RECEIVED.
        SynReceived = "TCP_SYN_RECV",
        /// FIN-WAIT-1.
        FinWait1 = "TCP_FIN_WAIT1",
        /// FIN-WAIT-2.
        FinWait2 = "TCP_FIN_WAIT2",
        /// TIME-WAIT; also an orphan in FIN-WAIT-2, of which the kernel keeps as little as of a time-wait.
        TimeWait = "TCP_TIME_WAIT",
        /// CLOSED.
        Close = "TCP_CLOSE",
        /// CLOSE-WAIT.
        CloseWait = "TCP_CLOSE_WAIT",
        /// LAST-ACK.
        LastAck = "TCP_LAST_ACK",
        /// LISTEN.
        Listen = "TCP_LISTEN",
        /// CLOSING.
        Closing = "TCP_CLOSING",
        /// A connection being made, before it has a socket of its own.
        NewSynReceived = "TCP_NEW_SYN_RECV",
        /// There is no socket.
        NoSocket = "UNKNOWN",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_not_in_the_list_is_kept_as_the_kernel_prints_it() {
        for word in ["NO_SOCKET", "TCP_ABORT_ON_CLOSE", "TCP_STATE", "0x1b", ""] {
            let Ok(reason) = word.parse::<Reason>();
            assert_eq!(reason.to_string(), word);
        }
        assert_eq!("TCP_STATE".parse(), Ok(Reason::TcpState));
        assert_eq!("0x1b".parse(), Ok(Reason::Other("0x1b".into())));
        assert_eq!("TCP_LISTEN".parse(), Ok(State::Listen));
    }
}
