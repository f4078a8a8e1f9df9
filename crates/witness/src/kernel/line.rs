//! Reads a line of `trace_pipe`.

use std::net::{IpAddr, SocketAddr};

use super::event::{CloseEvent, KillEvent, ResetEvent};
use super::stamp::Stamp;
use crate::evidence::canonical;

/// Most characters of a line that are repeated in an error.
const MAX_SHOWN: usize = 240;

/// A line of `trace_pipe`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TraceLine {
    /// A RST.
    Reset(ResetEvent),
    /// A connection was closed by one of its sides.
    Close(CloseEvent),
    /// A thread was killed.
    Kill(KillEvent),
    /// The kernel wrote faster than we read, and dropped events.
    Lost {
        /// Of which processor.
        cpu: u32,
        /// How many; `None` where the kernel does not know.
        events: Option<u64>,
    },
}

/// A line of `trace_pipe` that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("trace_pipe: {what} in the line {line:?}")]
pub struct BadLine {
    /// What is missing or wrong.
    pub what: &'static str,
    /// The line, or its beginning.
    pub line: String,
}

/// A line that was read.
pub(super) type ParsedLine = Result<TraceLine, BadLine>;

impl TraceLine {
    /// Reads one line, without its end.
    ///
    /// # Errors
    /// The line is neither an event that is asked for nor a note of lost events.
    pub(super) fn parse(line: &str) -> ParsedLine {
        let parsed = if line.starts_with("CPU:") {
            lost(line).ok_or("no count of lost events")
        } else {
            event(line)
        };
        parsed.map_err(|what| BadLine {
            what,
            line: line.chars().take(MAX_SHOWN).collect(),
        })
    }
}

/// `CPU:1 [LOST 17 EVENTS]` or `CPU:1 [LOST EVENTS]` (`print_trace_line`).
fn lost(line: &str) -> Option<TraceLine> {
    let (cpu, rest) = line.strip_prefix("CPU:")?.split_once(' ')?;
    let count = rest
        .trim()
        .strip_prefix("[LOST ")?
        .strip_suffix("EVENTS]")?
        .trim();
    Some(TraceLine::Lost {
        cpu: cpu.parse().ok()?,
        events: if count.is_empty() {
            None
        } else {
            Some(count.parse().ok()?)
        },
    })
}

/// `  python3-7006476  (   7006476) [001] ..s2.  4743.111379: tcp_send_reset: skbaddr=… skaddr=… src=… dest=… state=…`.
///
/// The name of the thread may hold anything, so the event's name is looked for from the line's right end.
fn event(line: &str) -> Result<TraceLine, &'static str> {
    let Some((head, name, fields)) = head_name_and_fields(line) else {
        return Err("no event that was asked for");
    };
    let fields = TraceFields(fields);
    match name {
        "tcp_send_reset" => reset(head, &fields).map(TraceLine::Reset),
        "inet_sock_set_state" => close(head, &fields).map(TraceLine::Close),
        "signal_deliver" => match fields.get("sig") {
            Some("9") => Ok(TraceLine::Kill(KillEvent {
                stamp: Stamp::parse(head)?,
            })),
            _ => Err("no SIGKILL"),
        },
        _ => Err("no event that was asked for"),
    }
}

fn head_name_and_fields(line: &str) -> Option<(&str, &str, &str)> {
    let (rest, fields) = split_at_last_colon(line)?;
    let (head, name) = split_at_last_colon(rest)?;
    Some((head, name, fields))
}

/// Splits at the last `: `. Two such lines are read for each connection: this search is quicker than
/// `str::rsplit_once`, which prepares itself for long texts.
fn split_at_last_colon(text: &str) -> Option<(&str, &str)> {
    let at = text.as_bytes().windows(2).rposition(|two| two == b": ")?;
    // Both bytes are ASCII: these are borders of characters.
    Some((text.get(..at)?, text.get(at + 2..)?))
}

/// `name=value name=value`.
struct TraceFields<'a>(&'a str);

impl<'a> TraceFields<'a> {
    fn get(&self, name: &str) -> Option<&'a str> {
        let mut words = self.0.split_ascii_whitespace();
        words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    }

    fn read<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        self.get(name)?.parse().ok()
    }
}

fn reset(head: &str, fields: &TraceFields<'_>) -> Result<ResetEvent, &'static str> {
    let stamp = Stamp::parse(head)?;
    // The address of the segment that the RST answers (`tcp_v4_send_reset`), or zero if a close sends the RST
    // (`tcp_send_active_reset`).
    let answers = fields
        .get("skbaddr")
        .is_none_or(|address| address.bytes().any(|digit| digit != b'0'));
    let address = |name| fields.read(name).map(canonical);
    Ok(ResetEvent {
        own_call: !answers && !stamp.in_interrupt,
        stamp,
        source: address("src").ok_or("no src address")?,
        destination: Some(address("dest").ok_or("no dest address")?)
            .filter(|address| address.port() != 0),
        state: fields.read("state"),
        reason: fields.read("reason"),
    })
}

/// `… family=AF_INET protocol=IPPROTO_TCP sport=8000 dport=4000 saddr=… daddr=… saddrv6=… daddrv6=… oldstate=…
/// newstate=…`
///
/// The kernel fills in both kinds of addresses; those of version 6 are the mapped ones of an IPv4 connection.
fn close(head: &str, fields: &TraceFields<'_>) -> Result<CloseEvent, &'static str> {
    let stamp = Stamp::parse(head)?;
    let end = |address, port| -> Option<SocketAddr> {
        let ip: IpAddr = fields.read(address)?;
        Some(canonical(SocketAddr::new(ip, fields.read(port)?)))
    };
    Ok(CloseEvent {
        stamp,
        side: end("saddrv6", "sport").ok_or("no source address")?,
        peer: end("daddrv6", "dport").ok_or("no destination address")?,
        state: fields.read("newstate").ok_or("no new state")?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use std::time::Duration;

    use super::*;
    use crate::evidence::{Reason, State};

    const CLOSE: &str = "         python3-7006476    [001] .....  4743.101043: tcp_send_reset: \
        skbaddr=0000000000000000 skaddr=0000000096df4793 src=127.0.0.1:52315 dest=127.0.0.1:50080 \
        state=TCP_CLOSE reason=TCP_ABORT_ON_CLOSE";

    fn event(line: &str) -> ResetEvent {
        match TraceLine::parse(line) {
            Ok(TraceLine::Reset(event)) => event,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_reset_that_a_close_sent_is_read() {
        let event = event(CLOSE);
        assert_eq!(
            event,
            ResetEvent {
                stamp: Stamp {
                    time: Duration::from_micros(4_743_101_043),
                    comm: Some("python3".to_owned()),
                    pid: 7006476,
                    process: None,
                    cpu: 1,
                    in_interrupt: false,
                },
                own_call: true,
                source: "127.0.0.1:52315".parse().unwrap(),
                destination: "127.0.0.1:50080".parse().ok(),
                state: Some(State::Close),
                reason: Some(Reason::AbortOnClose),
            }
        );
    }

    #[test]
    fn a_reset_that_answers_a_segment_has_no_sender() {
        let line = " ksoftirqd/1-22  (     22) [001] ..s1.  4743.568057: tcp_send_reset: \
            skbaddr=0000000093c1d8d9 skaddr=0 src=1.2.3.4:1 dest=1.2.3.4:2 state=UNKNOWN reason=NO_SOCKET";
        assert_eq!(event(line).sender(), None);
        // If a timer sends the RST, no segment is answered, and yet the thread that ran did not send the RST.
        let timer = CLOSE.replace("..... ", "..s1. ");
        assert_eq!(event(&timer).sender(), None);
        // The RST answers a segment that a process handed in itself, as a tunnel does.
        let tunnel = CLOSE.replace("skbaddr=0000000000000000", "skbaddr=0000000000000001");
        assert_eq!(event(&tunnel).sender(), None);
    }

    #[test]
    fn a_sender_is_the_process_while_it_lives_and_else_the_thread() {
        let now = rstlab_wire::monotonic_now();
        let now = format!("{}.{:06}", now.as_secs(), now.subsec_micros());
        let line = CLOSE.replace("4743.101043", &now);
        let pid_of = |process: &str| {
            let line = line.replace("-7006476    [", &format!("-7006476 ({process}) ["));
            event(&line).sender().map(|it| it.pid)
        };
        let own = std::process::id();
        assert_eq!(pid_of(&format!("{own:7}")), Some(own));
        assert_eq!(
            pid_of("7006400"),
            Some(7006476),
            "it may be an older thread's"
        );
        assert_eq!(pid_of("-------"), Some(7006476));
    }

    #[test]
    fn the_name_of_a_thread_may_hold_anything() {
        for name in [
            "a-1 [0]",
            "x: y",
            "(12)",
            "kworker/u4:1-ev",
            "ä b",
            "(5) [001]",
        ] {
            let line = CLOSE.replace("python3", name);
            assert_eq!(event(&line).stamp.comm.as_deref(), Some(name));
        }
        assert_eq!(event(&CLOSE.replace("python3", "<...>")).stamp.comm, None);
    }

    #[test]
    fn ipv6_addresses_are_read_and_mapped_ones_become_ipv4() {
        let line = CLOSE.replace("127.0.0.1:52315", "[2001:db8::1]:443");
        assert_eq!(event(&line).source, "[2001:db8::1]:443".parse().unwrap());
        let line = CLOSE.replace("127.0.0.1:52315", "[::ffff:127.0.0.1]:52315");
        assert_eq!(event(&line).source, event(CLOSE).source);
    }

    #[test]
    fn a_reset_without_a_reason_or_with_an_unknown_one_is_read() {
        let line = CLOSE.replace(" reason=TCP_ABORT_ON_CLOSE", "");
        assert_eq!(event(&line).reason, None);
        let line = CLOSE.replace("TCP_ABORT_ON_CLOSE", "0x1b");
        assert_eq!(event(&line).reason, Some(Reason::Other("0x1b".into())));
    }

    #[test]
    fn a_reset_by_a_listener_has_no_destination() {
        let line = CLOSE.replace("127.0.0.1:50080", "0.0.0.0:0");
        assert_eq!(event(&line).destination, None);
    }

    const SHUT: &str = "     rstlab-upstream-77  (     70) [000] ...1. 12.000001: inet_sock_set_state: \
        family=AF_INET protocol=IPPROTO_TCP sport=8000 dport=4000 saddr=127.0.0.1 daddr=127.0.0.2 \
        saddrv6=::ffff:127.0.0.1 daddrv6=::ffff:127.0.0.2 oldstate=TCP_ESTABLISHED newstate=TCP_FIN_WAIT1";
    const KILL: &str = "  x-77 (     70) [000] d..1. 12.000001: signal_deliver: \
        sig=9 errno=0 code=0 sa_handler=0 sa_flags=0";

    #[test]
    fn a_close_names_its_side_and_its_thread() {
        let Ok(TraceLine::Close(close)) = TraceLine::parse(SHUT) else {
            panic!("{:?}", TraceLine::parse(SHUT));
        };
        assert_eq!(close.side, "127.0.0.1:8000".parse().unwrap());
        assert_eq!(close.peer, "127.0.0.2:4000".parse().unwrap());
        assert_eq!(close.state, State::FinWait1);
        assert_eq!((close.stamp.pid, close.stamp.process), (77, Some(70)));
        let v6 = SHUT.replace("saddrv6=::ffff:127.0.0.1", "saddrv6=2001:db8::1");
        let Ok(TraceLine::Close(close)) = TraceLine::parse(&v6) else {
            panic!("{:?}", TraceLine::parse(&v6));
        };
        assert_eq!(close.side, "[2001:db8::1]:8000".parse().unwrap());
    }

    #[test]
    fn a_kill_names_its_thread() {
        let Ok(TraceLine::Kill(kill)) = TraceLine::parse(KILL) else {
            panic!("{:?}", TraceLine::parse(KILL));
        };
        assert_eq!(kill.stamp.pid, 77);
        assert_eq!(
            TraceLine::parse(&KILL.replace("sig=9", "sig=15"))
                .unwrap_err()
                .what,
            "no SIGKILL"
        );
    }

    #[test]
    fn a_note_of_lost_events_is_read() {
        let lost = |cpu, events| Ok(TraceLine::Lost { cpu, events });
        assert_eq!(
            TraceLine::parse("CPU:1 [LOST 17 EVENTS]"),
            lost(1, Some(17))
        );
        assert_eq!(TraceLine::parse("CPU:0 [LOST EVENTS]"), lost(0, None));
    }

    #[test]
    fn an_error_about_a_bad_line_names_the_line() {
        let bad = |line: &str, what| {
            let error = TraceLine::parse(line).unwrap_err();
            assert_eq!((error.what, error.line.as_str()), (what, line));
            assert!(error.to_string().contains(what));
        };
        bad("", "no event that was asked for");
        bad("        a-1 [0", "no event that was asked for");
        bad("CPU:x [LOST 1 EVENTS]", "no count of lost events");
        bad("CPU:1 [LOST -1 EVENTS]", "no count of lost events");
        bad(&CLOSE.replace("4743.101043", "4743"), "no time");
        bad(&CLOSE.replace("[001]", "001"), "no cpu");
        bad(&CLOSE.replace("-7006476", "-x"), "no pid");
        bad(&CLOSE.replace("src=", "source="), "no src address");
        bad(
            &CLOSE.replace("dest=127.0.0.1:50080", "dest=127.0.0.1"),
            "no dest address",
        );
        let long = "x".repeat(9000);
        assert_eq!(TraceLine::parse(&long).unwrap_err().line.len(), MAX_SHOWN);
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,200}") {
            let _ = TraceLine::parse(&text);
        }

        /// A line that is cut, doubled or overwritten somewhere is an event or an error, never a panic.
        #[test]
        fn no_broken_line_makes_the_parser_panic(at in 0..CLOSE.len(), bytes in 0_usize..20, with in "\\PC{0,9}") {
            let end = (at + bytes).min(CLOSE.len());
            for line in [CLOSE, SHUT, KILL] {
                let (at, end) = (at.min(line.len()), end.min(line.len()));
                let _ = TraceLine::parse(&format!("{}{with}{}", &line[..at], &line[end..]));
            }
            let _ = TraceLine::parse(&format!("CPU:{with}"));
        }

        #[test]
        fn any_reset_in_the_format_of_the_kernel_is_read(
            comm in "[!-~][ -~]{0,13}[!-~]",
            pid in 1_u32..4_194_304,
            micros in 0_u64..1 << 50,
            source: (std::net::IpAddr, u16),
        ) {
            let source = SocketAddr::from(source);
            let line = format!(
                "{comm:>16}-{pid:<7} ({pid:7}) [003] b..1. {:5}.{:06}: tcp_send_reset: skbaddr=00 skaddr=01 \
                 src={source} dest=127.0.0.1:9 state=TCP_CLOSE reason=TCP_STATE",
                micros / 1_000_000, micros % 1_000_000
            );
            let event = event(&line);
            prop_assert_eq!(event.stamp.comm.unwrap_or("<...>".into()), comm);
            prop_assert_eq!((event.stamp.pid, event.stamp.process, event.stamp.cpu), (pid, Some(pid), 3));
            prop_assert_eq!(event.stamp.time, Duration::from_micros(micros));
            prop_assert_eq!(event.source, canonical(source));
            prop_assert!(event.own_call);
        }
    }
}
