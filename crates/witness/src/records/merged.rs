//! Merges the evidence of two records of one connection: of each kind of evidence, the merged record has the piece that
//! tells more, because a half that saw nothing does not prove that nothing happened.

use std::cmp::Reverse;

use crate::evidence::{
    ClientSide, Counted, Counters, Ending, Evidence, KernelClose, KernelReset, KernelWord,
    ServerSide,
};
use crate::verdict::Cause;

/// The evidence of both halves. Their order does not matter.
pub(super) fn merged(one: Evidence, other: Evidence) -> Evidence {
    Evidence {
        client: stronger(one.client, other.client, of_client),
        server: stronger(one.server, other.server, of_server),
        counted: stronger(one.counted, other.counted, of_counted),
        packets: stronger(one.packets, other.packets, of_packets),
        kernel: match (one.kernel, other.kernel) {
            (Some(one), Some(other)) => Some(of_kernels(one, other)),
            (one, other) => one.or(other),
        },
    }
}

/// The one of two pieces of evidence that tells more.
fn stronger<T, K: Ord>(one: Option<T>, other: Option<T>, tells: impl Fn(&T) -> K) -> Option<T> {
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

/// Counters that moved tell more: those of another network namespace do not move.
fn of_counted(counted: &Counted) -> impl Ord + use<> {
    let Counted { change, alone } = *counted;
    let moved = change != Counters::default();
    (moved, alone, Reverse(change))
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
            // The RST of a close decides, though a RST that answers a segment may overtake it.
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
        reset: stronger(one.reset, other.reset, of_reset),
        closed: stronger(one.closed, other.closed, of_close),
        killed: one.killed || other.killed,
        incomplete: one.incomplete || other.incomplete,
    }
}

/// An echo may have overtaken the RST that tells the cause; else the first RST decided.
fn of_reset(reset: &KernelReset) -> impl Ord + use<> {
    let tells = Cause::of_reset(reset).is_told();
    let sender = reset.sender.as_ref().map(|sender| sender.pid);
    (tells, Reverse(reset.at_ns), reset.from, sender)
}

fn of_close(close: &KernelClose) -> impl Ord + use<> {
    (Reverse(close.at_ns), close.by.pid)
}
