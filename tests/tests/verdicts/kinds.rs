//! The kinds of resets that the tests make, with the cause of each.

use std::time::Duration;

use rstlab_upstream::Mode;
use rstlab_witness::Cause;

/// A way to make a reset, or an early end.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) mode: Mode,
    /// Between head and body.
    pub(crate) gap: Duration,
    /// Of the request; `None` is a GET.
    pub(crate) body_bytes: Option<u64>,
    pub(crate) response_bytes: u64,
    /// What makes the reset; `None` if the timing decides among three causes, as it may for any gap on a busy machine.
    pub(crate) cause: Option<Cause>,
    pub(crate) in_the_mix: bool,
}

/// More than the sockets' buffers hold: when the server closes, most of the response and the FIN are not sent yet.
const LARGE: u64 = 614_400;

const LAZY: Kind = Kind {
    name: "lazy",
    mode: Mode::Lazy,
    gap: Duration::ZERO,
    body_bytes: Some(22),
    response_bytes: LARGE,
    cause: None,
    in_the_mix: false,
};

pub(crate) const KINDS: [Kind; 11] = [
    Kind {
        name: "lazy, gap 0",
        // The body is longer than one read of the server.
        body_bytes: Some(60_000),
        in_the_mix: true,
        ..LAZY
    },
    Kind {
        name: "lazy, gap 0.5 ms",
        gap: Duration::from_micros(500),
        in_the_mix: true,
        ..LAZY
    },
    Kind {
        name: "lazy, gap 2 ms",
        gap: Duration::from_millis(2),
        ..LAZY
    },
    Kind {
        name: "lazy, gap 20 ms",
        gap: Duration::from_millis(20),
        in_the_mix: true,
        ..LAZY
    },
    Kind {
        name: "lazy, small response, gap 60 ms",
        gap: Duration::from_millis(60),
        response_bytes: 1000,
        ..LAZY
    },
    Kind {
        // No byte may lie unread: a close with SO_LINGER zero would then have that cause, too.
        name: "abort",
        mode: Mode::Abort,
        body_bytes: None,
        cause: Some(Cause::LingerZero),
        in_the_mix: true,
        ..LAZY
    },
    Kind {
        name: "kill",
        mode: Mode::Kill,
        body_bytes: Some(60_000),
        cause: Some(Cause::Killed),
        in_the_mix: true,
        ..LAZY
    },
    Kind {
        name: "kill, nothing unread",
        mode: Mode::Kill,
        body_bytes: None,
        cause: Some(Cause::Killed),
        ..LAZY
    },
    Kind {
        name: "delay",
        mode: Mode::Delay,
        gap: Duration::from_millis(1),
        in_the_mix: true,
        ..LAZY
    },
    Kind {
        name: "idle-close",
        mode: Mode::IdleClose,
        cause: Some(Cause::KeepAliveRace),
        in_the_mix: true,
        ..LAZY
    },
    Kind {
        name: "truncate",
        mode: Mode::Truncate,
        cause: Some(Cause::ClosedWithoutAnswer),
        in_the_mix: true,
        ..LAZY
    },
];
