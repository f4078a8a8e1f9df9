use rstlab_wire::close::Peer;

use super::super::fixture::{CLIENT, SERVER, client, kernel, server};
use super::*;
use crate::evidence::{Counters, KernelClose, KernelWord, Process, ServerSide, State};

/// A reset that the client saw.
fn seen() -> Evidence {
    Evidence {
        client: client(Some(104)),
        ..Evidence::default()
    }
}

fn closed(killed: bool) -> Option<KernelWord> {
    Some(KernelWord {
        closed: Some(KernelClose {
            at_ns: 1,
            state: State::FinWait1,
            by: Process { name: None, pid: 1 },
        }),
        killed,
        ..KernelWord::default()
    })
}

fn packet(answers: bool, fin_acked_before: bool, received_bytes: u64) -> Option<Ending> {
    Some(Ending::Reset {
        at_ns: 1,
        from: SERVER,
        seq: 1,
        answers,
        refuses: false,
        fin_before: fin_acked_before,
        fin_acked_before,
        received_bytes,
        request_unanswered: false,
        whole: true,
    })
}

fn counted(close: u64, data: u64, sent: u64, alone: bool) -> Option<Counted> {
    Some(Counted {
        change: Counters {
            abort_on_close: close,
            abort_on_data: data,
            resets_sent: sent,
            ..Counters::default()
        },
        alone,
    })
}

fn proved(cause: Cause) -> (Cause, Known) {
    (cause, Known::Proved)
}

fn inferred(cause: Cause) -> (Cause, Known) {
    (cause, Known::Inferred)
}

fn by_counters(cause: Cause) -> (Cause, Known) {
    (cause, Known::Counted)
}

fn judged(evidence: &Evidence) -> (Cause, Known) {
    let verdict = Verdict::of(evidence, SERVER);
    (verdict.cause, verdict.known)
}

/// The client's reset is the only evidence beside the kernel's reason.
#[test]
fn the_kernel_s_reason_proves() {
    for (reason, state, cause) in [
        (Reason::AbortOnClose, State::Close, Cause::UnreadAtClose),
        (Reason::AbortOnData, State::FinWait1, Cause::DataAfterClose),
        (Reason::TimewaitSocket, State::TimeWait, Cause::LateData),
        (Reason::TcpState, State::Close, Cause::LingerZero),
        (Reason::NoSocket, State::NoSocket, Cause::Refused),
        (Reason::AbortOnLinger, State::Close, Cause::Linger2Negative),
        (Reason::DisconnectWithData, State::Close, Cause::Disconnect),
        (Reason::AbortOnMemory, State::Close, Cause::Memory),
        (Reason::KeepaliveTimeout, State::Close, Cause::SilentPeer),
    ] {
        let evidence = Evidence {
            kernel: kernel(SERVER, Some(reason.clone()), state),
            ..seen()
        };
        let verdict = Verdict::of(&evidence, SERVER);
        assert_eq!((verdict.cause, verdict.known), (cause, Known::Proved));
        assert_eq!(verdict.reason, Some(reason));
        assert_eq!(verdict.sent_by, Some(Side::Server));
    }
}

#[test]
fn the_verdict_tells_who_sent_the_reset() {
    let evidence = Evidence {
        kernel: kernel(CLIENT, Some(Reason::AbortOnClose), State::Close),
        ..seen()
    };
    let verdict = Verdict::of(&evidence, SERVER);
    assert_eq!(verdict.sent_by, Some(Side::Client));
}

#[test]
fn a_close_without_a_reset_is_proved_by_the_kernel_too() {
    let cut = Evidence {
        client: client(None),
        kernel: closed(false),
        ..Evidence::default()
    };
    let cause = Cause::ClosedWithoutAnswer;
    assert_eq!(judged(&cut), (cause, Known::Proved));
    // One of the lost events may have been the RST.
    let mut incomplete = cut;
    incomplete.kernel.as_mut().unwrap().incomplete = true;
    assert_eq!(judged(&incomplete), (cause, Known::Inferred));
}

#[test]
fn a_whole_response_and_no_reset_is_no_fault() {
    let whole = Evidence {
        client: client(None).map(|client| ClientSide {
            response_whole: true,
            ..client
        }),
        ..Evidence::default()
    };
    assert_eq!(judged(&whole), inferred(Cause::NoReset));
    let fin = |from| {
        Some(Ending::Closed {
            at_ns: 1,
            from,
            whole: true,
        })
    };
    for from in [SERVER, CLIENT] {
        let packets = Evidence {
            packets: fin(from),
            ..whole.clone()
        };
        assert_eq!(judged(&packets), proved(Cause::NoReset));
    }
    let kernel = Evidence {
        kernel: closed(false),
        ..whole.clone()
    };
    assert_eq!(judged(&kernel), proved(Cause::NoReset));
    // Packets alone do not tell whether something was missing.
    let alone = Evidence {
        packets: fin(SERVER),
        ..Evidence::default()
    };
    assert_eq!(judged(&alone), proved(Cause::NoReset));
    // A reset that the packets do not show.
    let mut missed = whole;
    missed.client = client(Some(104)).map(|client| ClientSide {
        response_whole: true,
        ..client
    });
    missed.packets = fin(SERVER);
    assert_eq!(judged(&missed), inferred(Cause::Unknown));
}

#[test]
fn a_killed_process_and_a_kept_connection_are_causes_of_their_own() {
    let mut killed = Evidence {
        kernel: kernel(SERVER, Some(Reason::AbortOnClose), State::Close),
        ..seen()
    };
    killed.kernel.as_mut().unwrap().killed = true;
    assert_eq!(judged(&killed), proved(Cause::Killed));
    let killed = Evidence {
        client: client(None),
        kernel: closed(true),
        ..Evidence::default()
    };
    assert_eq!(judged(&killed), proved(Cause::Killed));

    let race = |read_bytes, reason| {
        let evidence = Evidence {
            client: client(Some(104)).map(|client| ClientSide {
                reused: true,
                read_bytes,
                ..client
            }),
            kernel: kernel(SERVER, Some(reason), State::Close),
            ..Evidence::default()
        };
        judged(&evidence).0
    };
    assert_eq!(race(0, Reason::AbortOnClose), Cause::KeepAliveRace);
    assert_eq!(race(0, Reason::TimewaitSocket), Cause::KeepAliveRace);
    assert_eq!(race(0, Reason::TcpState), Cause::LingerZero);
    assert_eq!(
        race(1, Reason::AbortOnClose),
        Cause::UnreadAtClose,
        "it was answered"
    );
}

#[test]
fn packets_prove_the_causes_that_their_flags_tell() {
    for (packet, server, expected) in [
        (packet(true, false, 99), None, proved(Cause::DataAfterClose)),
        (packet(true, true, 99), None, proved(Cause::LateData)),
        (packet(false, false, 0), None, proved(Cause::LingerZero)),
        (
            packet(false, false, 99),
            None,
            inferred(Cause::UnreadAtClose),
        ),
        (
            packet(false, false, 99),
            server(22),
            proved(Cause::UnreadAtClose),
        ),
    ] {
        let evidence = Evidence {
            server,
            packets: packet,
            ..seen()
        };
        assert_eq!(judged(&evidence), expected, "{evidence:?}");
    }
}

/// The missing part of a connection may show another cause.
#[test]
fn packets_of_a_part_of_a_connection_prove_nothing() {
    let part = |mut ending: Option<Ending>| {
        if let Some(Ending::Reset { whole, .. }) = &mut ending {
            *whole = false;
        }
        ending
    };
    for (packet, server, cause) in [
        (packet(false, false, 0), None, Cause::Unknown),
        (packet(false, false, 99), None, Cause::UnreadAtClose),
        (packet(true, false, 0), None, Cause::Gone),
        (packet(true, false, 99), None, Cause::Gone),
        (packet(true, true, 99), None, Cause::LateData),
        // The server knows what the packets do not tell.
        (packet(false, false, 0), server(22), Cause::UnreadAtClose),
        (packet(true, false, 0), server(22), Cause::UnreadAtClose),
    ] {
        let evidence = Evidence {
            packets: part(packet),
            server,
            ..Evidence::default()
        };
        let verdict = Verdict::of(&evidence, SERVER);
        assert_eq!((verdict.cause, verdict.known), (cause, Known::Inferred));
        assert_eq!(verdict.sent_by, Some(Side::Server));
    }
    // The client knows that it sent something.
    let forgotten = |written_bytes| Evidence {
        client: client(Some(104)).map(|client| ClientSide {
            written_bytes,
            ..client
        }),
        packets: part(packet(false, false, 0)),
        ..Evidence::default()
    };
    assert_eq!(
        [0, 179].map(|bytes| judged(&forgotten(bytes)).0),
        [Cause::Unknown, Cause::UnreadAtClose]
    );
    let closed = Evidence {
        packets: Some(Ending::Closed {
            at_ns: 1,
            from: SERVER,
            whole: false,
        }),
        ..Evidence::default()
    };
    assert_eq!(judged(&closed), inferred(Cause::NoReset));
    // The kernel's word is proof all the same, and the RST that the kernel tells of may be missing in the packets.
    let told = Evidence {
        packets: part(packet(true, false, 99)),
        kernel: kernel(SERVER, Some(Reason::AbortOnClose), State::Close),
        ..Evidence::default()
    };
    assert_eq!(judged(&told), proved(Cause::UnreadAtClose));
}

#[test]
fn the_word_counted_is_only_for_a_connection_that_was_alone() {
    for (counted, expected) in [
        (counted(1, 0, 1, true), by_counters(Cause::UnreadAtClose)),
        (counted(9, 0, 9, false), inferred(Cause::UnreadAtClose)),
        (counted(2, 0, 2, true), inferred(Cause::UnreadAtClose)),
        // A RST that no counter of aborts tells of: an echo, or another connection's.
        (counted(1, 0, 2, true), inferred(Cause::UnreadAtClose)),
        (counted(4, 4, 8, false), inferred(Cause::Unknown)),
        (counted(0, 0, 0, true), inferred(Cause::Unknown)),
    ] {
        let evidence = Evidence { counted, ..seen() };
        assert_eq!(judged(&evidence), expected, "{counted:?}");
    }
    let late = |errno| Evidence {
        client: client(Some(errno)),
        counted: counted(0, 0, 1, true),
        ..Evidence::default()
    };
    assert_eq!(judged(&late(32)), by_counters(Cause::LateData));
    let told = Evidence {
        server: server(0),
        counted: counted(0, 1, 1, true),
        ..seen()
    };
    assert_eq!(judged(&told), by_counters(Cause::DataAfterClose));
}

/// `TCPAbortOnData` moves by both; only a close with `SO_LINGER` zero takes the server out of ESTABLISHED.
#[test]
fn the_counters_tell_bytes_after_a_close_from_linger_zero() {
    let told = |resets, connections_aborted, alone| {
        let Counted { change, .. } = counted(0, resets, resets, alone)?;
        Some(Counted {
            change: Counters {
                connections_aborted,
                ..change
            },
            alone,
        })
    };
    for (counted, expected) in [
        (told(1, 1, true), by_counters(Cause::DataAfterClose)),
        (told(1, 2, true), by_counters(Cause::LingerZero)),
        // The change has only one end of the last connections.
        (told(9, 10, false), inferred(Cause::DataAfterClose)),
        (told(9, 17, false), inferred(Cause::LingerZero)),
    ] {
        let evidence = Evidence { counted, ..seen() };
        assert_eq!(judged(&evidence), expected, "{counted:?}");
    }
}

#[test]
fn a_reset_that_came_to_the_server_is_the_client_s() {
    let reset = server(22).map(|mut side| {
        side.closed.peer = Peer::Reset;
        side
    });
    let evidence = Evidence {
        server: reset,
        ..Evidence::default()
    };
    assert!(evidence.is_conclusive());
    let verdict = Verdict::of(&evidence, SERVER);
    assert_eq!(
        (verdict.cause, verdict.known, verdict.sent_by),
        (Cause::Unknown, Known::Inferred, Some(Side::Client))
    );
}

/// The server is on another machine.
#[test]
fn a_reset_that_this_kernel_did_not_send_is_the_server_s() {
    let evidence = Evidence {
        kernel: Some(KernelWord::default()),
        ..seen()
    };
    let verdict = Verdict::of(&evidence, SERVER);
    assert_eq!(
        (verdict.cause, verdict.known, verdict.sent_by),
        (Cause::Unknown, Known::Inferred, Some(Side::Server))
    );
}

#[test]
fn two_sockets_without_other_evidence_suffice_for_a_guess() {
    let guess = |errno, server| {
        judged(&Evidence {
            client: client(errno),
            server,
            ..Evidence::default()
        })
    };
    assert_eq!(guess(Some(104), server(22)), inferred(Cause::UnreadAtClose));
    assert_eq!(guess(Some(104), server(0)), inferred(Cause::DataAfterClose));
    assert_eq!(guess(Some(32), server(0)), inferred(Cause::DataAfterClose));
    assert_eq!(guess(Some(32), None), inferred(Cause::DataAfterClose));
    let late = Evidence {
        client: client(Some(32)).map(|client| ClientSide {
            pause_ns: FIN_IS_ACKED_NS,
            ..client
        }),
        ..Evidence::default()
    };
    assert_eq!(judged(&late), inferred(Cause::LateData));
    assert_eq!(guess(Some(104), None), inferred(Cause::Unknown));
    assert_eq!(guess(None, None), inferred(Cause::ClosedWithoutAnswer));
    let race = Evidence {
        client: client(Some(104)).map(|client| ClientSide {
            reused: true,
            read_bytes: 0,
            ..client
        }),
        ..Evidence::default()
    };
    assert_eq!(judged(&race), inferred(Cause::KeepAliveRace));
    let aborted = server(0).map(|side| ServerSide {
        linger_zero: true,
        ..side
    });
    assert_eq!(guess(Some(104), aborted), inferred(Cause::LingerZero));
    let killed = server(22).map(|side| ServerSide {
        killed: true,
        ..side
    });
    assert_eq!(guess(Some(104), killed), inferred(Cause::Killed));
    assert_eq!(guess(None, killed), inferred(Cause::Killed));
}

#[test]
fn evidence_that_disagrees_is_unknown_and_says_so() {
    let on_data = || kernel(SERVER, Some(Reason::AbortOnData), State::FinWait1);
    let base = Evidence {
        kernel: on_data(),
        ..seen()
    };
    for (evidence, says) in [
        (
            Evidence {
                server: server(22),
                ..base.clone()
            },
            "22 bytes unread",
        ),
        (
            Evidence {
                packets: packet(false, false, 99),
                ..base.clone()
            },
            "ACK flag says a close",
        ),
        (
            Evidence {
                counted: counted(1, 0, 1, true),
                ..base.clone()
            },
            "TCPAbortOnClose moved by 1",
        ),
        (
            Evidence {
                kernel: closed(false),
                ..base.clone()
            },
            "the kernel sent none",
        ),
    ] {
        let verdict = Verdict::of(&evidence, SERVER);
        assert_eq!((verdict.cause, verdict.known), inferred(Cause::Unknown));
        let disagreement = verdict.disagreement.expect(says);
        assert!(disagreement.contains(says), "{disagreement}");
    }
    // Bytes may come between the last look at the queue and the close.
    let evidence = Evidence {
        server: server(0),
        kernel: kernel(SERVER, Some(Reason::AbortOnClose), State::Close),
        ..base
    };
    assert_eq!(judged(&evidence), proved(Cause::UnreadAtClose));
}

#[test]
fn without_the_kernel_s_reason_the_packets_decide() {
    let evidence = Evidence {
        packets: packet(true, false, 99),
        kernel: kernel(SERVER, None, State::FinWait1),
        ..seen()
    };
    assert_eq!(judged(&evidence), proved(Cause::DataAfterClose));
}
