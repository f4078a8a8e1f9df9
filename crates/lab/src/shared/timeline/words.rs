//! The words of a timeline for calls, packets, processes and states.

use rstlab_wire::SysCall;
use rstlab_witness::{Process, Reason, Side, State};

use super::MAX_CHARS;
use crate::shared::errno;
use crate::shared::printable::printable;
use rstlab_cli::grouped;

/// The name of a side: the client of the connection is the proxy.
pub(super) fn side(side: Side) -> &'static str {
    match side {
        Side::Client => "proxy",
        Side::Server => "upstream",
    }
}

pub(super) fn process(process: &Process) -> String {
    match &process.name {
        Some(name) => format!("{}, pid {}", printable(name, MAX_CHARS), process.pid),
        None => format!("pid {}", process.pid),
    }
}

/// A system call and its result.
pub(super) fn call(call: SysCall, returned: Result<u64, i32>) -> String {
    let name = call.as_str();
    match (call, returned) {
        (_, Err(0)) => format!("{name}: failed"),
        (_, Err(errno)) => format!("{name}: {}", errno::numbered(errno)),
        (SysCall::Recv | SysCall::Splice, Ok(0)) => format!("{name} = 0, end of stream"),
        (SysCall::Recv | SysCall::Splice | SysCall::Peek | SysCall::Writev, Ok(bytes)) => {
            format!("{name} = {}", grouped(bytes))
        }
        (SysCall::Unread, Ok(bytes)) => format!("FIONREAD = {} unread", grouped(bytes)),
        (SysCall::Unsent, Ok(bytes)) => format!("TIOCOUTQ = {} unsent", grouped(bytes)),
        (
            SysCall::Connect
            | SysCall::Accept4
            | SysCall::Nodelay
            | SysCall::LingerZero
            | SysCall::Shutdown
            | SysCall::SoError
            | SysCall::Close,
            Ok(_),
        ) => name.to_owned(),
    }
}

/// A packet's flags in words. PSH is left out because it says nothing, and ACK beside data because every packet after
/// the first has it.
pub(super) fn packet(flags: &str, payload_bytes: u32) -> String {
    let mut words: Vec<String> = [('S', "SYN"), ('F', "FIN"), ('R', "RST")]
        .into_iter()
        .filter(|(flag, _)| flags.contains(*flag))
        .map(|(_, word)| word.to_owned())
        .collect();
    if payload_bytes > 0 {
        words.push(bytes(payload_bytes.into()));
    } else if flags.contains('.') {
        words.push("ACK".to_owned());
    }
    if words.is_empty() {
        words.push(printable(flags, 12));
    }
    words.join(" ")
}

pub(super) fn bytes(count: u64) -> String {
    let unit = if count == 1 { "byte" } else { "bytes" };
    format!("{} {unit}", grouped(count))
}

pub(super) fn reset(from: Side, reason: Option<&Reason>, state: Option<&State>) -> String {
    let mut text = format!("RST from {}", side(from));
    let reason = reason.map(|reason| printable(reason.as_str(), MAX_CHARS));
    let state = state.map(|state| format!("in {}", self::state(state)));
    let more: Vec<String> = reason.into_iter().chain(state).collect();
    if !more.is_empty() {
        text.push('\n');
        text += &more.join(" ");
    }
    text
}

/// A TCP state without the prefix `TCP_`, which all of them have.
pub(super) fn state(state: &State) -> String {
    let word = state.as_str();
    printable(word.strip_prefix("TCP_").unwrap_or(word), MAX_CHARS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_result_of_a_call_is_shown_with_its_meaning() {
        for (which, returned, text) in [
            (SysCall::Connect, Ok(0), "connect"),
            (SysCall::Connect, Err(111), "connect: 111 ECONNREFUSED"),
            (SysCall::Recv, Ok(65_536), "recv = 65,536"),
            (SysCall::Recv, Ok(0), "recv = 0, end of stream"),
            (SysCall::Writev, Err(32), "writev: 32 EPIPE"),
            (SysCall::Writev, Err(4095), "writev: errno 4095"),
            (SysCall::Writev, Err(0), "writev: failed"),
            (SysCall::Unread, Ok(22), "FIONREAD = 22 unread"),
        ] {
            assert_eq!(call(which, returned), text);
        }
    }

    #[test]
    fn the_flags_of_a_packet_become_words() {
        for (flags, bytes, text) in [
            ("S", 0, "SYN"),
            ("S.", 0, "SYN ACK"),
            (".", 0, "ACK"),
            ("P.", 1, "1 byte"),
            ("FP.", 1448, "FIN 1,448 bytes"),
            ("F.", 0, "FIN ACK"),
            ("R", 0, "RST"),
            ("R.", 0, "RST ACK"),
            ("none", 0, "none"),
        ] {
            assert_eq!(packet(flags, bytes), text);
        }
    }
}
