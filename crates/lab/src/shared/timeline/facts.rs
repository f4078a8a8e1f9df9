//! The facts below a timeline: what the record means, and how that is known.

use rstlab_witness::{Cause, Ending, Evidence, Known, Level, Record, Side, Verdict};

use super::{MAX_CHARS, words};
use crate::shared::printable::printable;
use rstlab_cli::grouped;

/// The cause, the evidence for it, the sender of the RST, and what the two programs and the client saw.
pub(super) fn of(record: &Record) -> Vec<(&'static str, String)> {
    let Record {
        evidence, verdict, ..
    } = record;
    let mut facts = vec![
        ("cause", cause(evidence, verdict)),
        ("known", known(record)),
        ("RST by", sender(record)),
    ];
    facts.extend(verdict.disagreement.as_ref().map(|text| {
        let text = printable(text, MAX_CHARS);
        ("but", format!("the evidence disagrees: {text}"))
    }));
    facts.extend(upstream(evidence).map(|text| ("upstream", text)));
    facts.extend(proxy(evidence).map(|text| ("proxy", text)));
    let outcome = record.outcome.as_ref();
    facts.extend(outcome.map(|word| ("client", client(word, evidence.reset_was_seen()))));
    if record.left_out > 0 {
        let text = format!(
            "{} events in the middle were not kept",
            grouped(record.left_out)
        );
        facts.push(("left out", text));
    }
    facts
}

/// The cause and its sentence, with the name of a side in place of "it".
fn cause(evidence: &Evidence, verdict: &Verdict) -> String {
    let only_packets = Evidence {
        packets: evidence.packets,
        ..Evidence::default()
    };
    let sentence = if evidence.packets.is_some() && *evidence == only_packets {
        verdict.cause.sentence_of_packets(verdict.known)
    } else {
        verdict.cause.sentence()
    };
    let who = match (verdict.sent_by, verdict.cause) {
        (Some(side), _) => words::side(side),
        // In these cases the FIN or RST came from the upstream or from its killed process.
        (None, Cause::ClosedWithoutAnswer | Cause::Killed | Cause::KeepAliveRace) => {
            words::side(Side::Server)
        }
        (None, _) => "sender of the RST",
    };
    let sentence = match (sentence.strip_prefix("It "), sentence.strip_prefix("Its ")) {
        (Some(rest), _) => format!("The {who} {rest}"),
        (_, Some(rest)) => format!("The {who}'s {rest}"),
        (None, None) => sentence.to_owned(),
    };
    format!("{}. {sentence}", verdict.cause)
}

fn known(record: &Record) -> String {
    let Record {
        evidence, verdict, ..
    } = record;
    let by_the_kernel = evidence.decided_by(record.server) == Level::Kernel;
    let from = match (verdict.known, &verdict.reason) {
        (Known::Proved, Some(reason)) if by_the_kernel => format!(
            "by the kernel's reason {}",
            printable(reason.as_str(), MAX_CHARS)
        ),
        (Known::Proved, None) if by_the_kernel => {
            "by the kernel: it saw the close, and sent no RST".to_owned()
        }
        (Known::Proved, _) => "by the packets".to_owned(),
        (Known::Counted, _) => {
            "by the kernel's counters: no other connection ended meanwhile".to_owned()
        }
        (Known::Inferred, _) if evidence.packets.is_some_and(|it| it.is_of_a_part()) => {
            "nothing that was seen proves it: packets are missing".to_owned()
        }
        (Known::Inferred, _) => "nothing that was seen proves it".to_owned(),
    };
    format!("{}, {from}", verdict.known)
}

fn sender(record: &Record) -> String {
    let Evidence {
        client,
        packets,
        kernel,
        ..
    } = &record.evidence;
    let reset = kernel.as_ref().and_then(|word| word.reset.as_ref());
    match record.verdict.sent_by {
        Some(side) => {
            let address = match side {
                Side::Client => record.client,
                Side::Server => record.server,
            };
            let process = reset.and_then(|reset| reset.sender.as_ref());
            let process = process.map(|process| format!(" ({})", words::process(process)));
            format!(
                "the {}, {address}{}",
                words::side(side),
                process.unwrap_or_default()
            )
        }
        None if reset.is_some()
            || matches!(packets, Some(Ending::Reset { .. }))
            || client.is_some_and(|client| client.reset.is_some()) =>
        {
            "not known".to_owned()
        }
        None => "nobody, as far as was seen".to_owned(),
    }
}

fn upstream(evidence: &Evidence) -> Option<String> {
    let told = evidence.server?;
    let closed = told.closed;
    Some(format!(
        "{} unread when it closed, {} not yet acknowledged",
        words::bytes(closed.unread_bytes),
        words::bytes(closed.unsent_bytes)
    ))
}

fn proxy(evidence: &Evidence) -> Option<String> {
    let seen = evidence.client?;
    let end = match seen.reset {
        Some(failure) => format!("{failure} in phase {}", failure.phase),
        None => "no call failed".to_owned(),
    };
    Some(format!(
        "{} sent, {} received on a {} connection; {end}",
        words::bytes(seen.written_bytes),
        words::bytes(seen.read_bytes),
        if seen.reused { "reused" } else { "fresh" }
    ))
}

fn client(outcome: &str, reset: bool) -> String {
    match outcome {
        "whole" if reset => "got the whole response: the reset cost nothing".to_owned(),
        "whole" => "got the whole response".to_owned(),
        "truncated" => "got the beginning of a response, and not its end".to_owned(),
        "abandoned" => "got no whole response: the proxy ended".to_owned(),
        "no-response" => "got no response of the upstream's".to_owned(),
        other => printable(other, MAX_CHARS),
    }
}
