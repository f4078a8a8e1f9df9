//! The evidence of two halves, put together: of each kind what saw more. One that saw nothing does not say that there
//! was nothing.

use std::cmp::Reverse;

use crate::{
    Cause, ClientSide, Counted, Ending, Evidence, KernelClose, KernelReset, KernelWord, ServerSide,
};

/// What either knows; in whatever order they come.
pub(super) fn merged(one: Evidence, other: Evidence) -> Evidence {
    Evidence {
        client: most(one.client, other.client, of_client),
        server: most(one.server, other.server, of_server),
        counted: most(one.counted, other.counted, of_counted),
        packets: most(one.packets, other.packets, of_packets),
        kernel: match (one.kernel, other.kernel) {
            (Some(one), Some(other)) => Some(of_kernels(one, other)),
            (one, other) => one.or(other),
        },
    }
}

/// The one that tells more.
fn most<T, K: Ord>(one: Option<T>, other: Option<T>, tells: impl Fn(&T) -> K) -> Option<T> {
    one.into_iter().chain(other).max_by_key(tells)
}

fn of_client(client: &ClientSide) -> impl Ord + use<> {
    let ClientSide {
        reset,
        written_bytes,
        pause_ns,
        read_bytes,
        response_whole,
        reused,
    } = *client;
    let reset = reset.map(|failure| failure.errno);
    (
        reset,
        read_bytes,
        written_bytes,
        pause_ns,
        response_whole,
        reused,
    )
}

fn of_server(server: &ServerSide) -> impl Ord + use<> {
    let ServerSide {
        closed,
        linger_zero,
        killed,
        response_whole,
    } = *server;
    let bytes = [
        closed.unread_bytes,
        closed.unsent_bytes,
        closed.lingered_bytes,
    ];
    (killed, linger_zero, !response_whole, bytes)
}

/// Counters are of a network namespace: those of another one do not move.
fn of_counted(counted: &Counted) -> impl Ord + use<> {
    let Counted { change, alone } = *counted;
    let aborts = [
        change.abort_on_close,
        change.abort_on_data,
        change.abort_on_linger,
    ];
    let others = [change.resets_sent, change.connections_aborted];
    let moved = aborts.iter().chain(&others).any(|count| *count > 0);
    (moved, alone, Reverse((aborts, others)))
}

fn of_packets(ending: &Ending) -> impl Ord + use<> {
    let (kind, at_ns, received_bytes, flags) = match *ending {
        Ending::Reset {
            at_ns,
            answers,
            refuses,
            fin_before,
            fin_acked_before,
            received_bytes,
            ..
        } => (
            2,
            at_ns,
            received_bytes,
            // The RST of a close decides, though an answer may overtake it.
            [!answers, refuses, fin_before, fin_acked_before],
        ),
        Ending::Closed { at_ns, .. } => (1, at_ns, 0, [false; 4]),
        Ending::Open => (0, 0, 0, [false; 4]),
    };
    let whole = !ending.is_of_a_part();
    (kind, whole, flags, received_bytes, Reverse(at_ns))
}

fn of_kernels(one: KernelWord, other: KernelWord) -> KernelWord {
    KernelWord {
        reset: most(one.reset, other.reset, of_reset),
        closed: most(one.closed, other.closed, of_close),
        killed: one.killed || other.killed,
        incomplete: one.incomplete || other.incomplete,
    }
}

/// An echo may have overtaken the one that tells the cause; else the first one decided.
fn of_reset(reset: &KernelReset) -> impl Ord + use<> {
    let cause = Cause::of(reset.reason.as_ref(), reset.state.as_ref());
    let tells = !matches!(cause, Cause::Unknown | Cause::Gone);
    let sender = reset.sender.as_ref().map(|sender| sender.pid);
    (tells, Reverse(reset.at_ns), reset.from, sender)
}

fn of_close(close: &KernelClose) -> impl Ord + use<> {
    (Reverse(close.at_ns), close.by.pid)
}
