//! Why a kind of evidence is unavailable, and what makes it available.

use std::io;
use std::path::{Path, PathBuf};

/// Why a kind of evidence is unavailable. The message names the missing privilege or mount.
#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    /// tracefs is not mounted.
    #[error(
        "tracefs is not mounted; as root: mount -t tracefs tracefs /sys/kernel/tracing; a container takes the host's \
         with --user 0 -v /sys/kernel/tracing:/tracing"
    )]
    NotMounted,
    /// The program does not run as root.
    #[error("{} is for root only: run this as root (sudo), in a container with --user 0", path.display())]
    Forbidden {
        /// What could not be opened.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel was built without the tracepoint, or is older than 4.16.
    #[error("this kernel has no tracepoint tcp:tcp_send_reset: {} is missing", path.display())]
    NoTracepoint {
        /// Where the tracepoint would be.
        path: PathBuf,
    },
    /// The kernel is older than 6.12.
    #[error("this kernel does not say why it sends a RST (Linux 6.12 and newer do)")]
    NoReasons,
    /// Another failure of tracefs.
    #[error("cannot {doing} {}", path.display())]
    Failed {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The counters of the network namespace cannot be read.
    #[error("the kernel's counters cannot be read")]
    NoCounters(#[source] io::Error),
    /// The program lacks the capability `CAP_NET_RAW`.
    #[error(
        "capturing packets needs CAP_NET_RAW: run this as root (sudo) or after setcap cap_net_raw+ep \
         PROGRAM, in a container with --user 0 --cap-add NET_RAW"
    )]
    CaptureForbidden {
        /// The kernel's answer.
        source: io::Error,
    },
    /// Another failure of the capture.
    #[error("cannot {doing}")]
    CaptureFailed {
        /// What was tried.
        doing: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl Unavailable {
    /// What went wrong with a file of tracefs.
    pub(crate) fn new(doing: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::PermissionDenied => Unavailable::Forbidden { path, source },
            _ => Unavailable::Failed {
                doing,
                path,
                source,
            },
        }
    }

    /// What went wrong with the capture.
    pub(crate) fn capture(doing: &'static str, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::PermissionDenied => Unavailable::CaptureForbidden { source },
            _ => Unavailable::CaptureFailed { doing, source },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unavailable_evidence_says_what_to_do() {
        let text = Unavailable::NotMounted.to_string();
        assert!(text.contains("mount -t tracefs tracefs /sys/kernel/tracing"));
        assert!(text.contains("--user 0 -v /sys/kernel/tracing:/tracing"));
        let denied = || io::Error::from(io::ErrorKind::PermissionDenied);
        let text = Unavailable::new("list", Path::new("/t"), denied()).to_string();
        assert!(text.contains("/t is for root only"), "{text}");
        let text = Unavailable::capture("open a packet socket", denied()).to_string();
        assert!(
            text.contains("setcap") && text.contains("--user 0 --cap-add NET_RAW"),
            "{text}"
        );
    }
}
