use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::ResetEvent;

/// Most characters of a line that an error repeats.
const SHOWN: usize = 240;

/// A line of `trace_pipe`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// A RST.
    Reset(ResetEvent),
    /// The kernel wrote faster than we read, and dropped events.
    Lost {
        /// Of which processor.
        cpu: u32,
        /// How many; `None` where the kernel does not know.
        events: Option<u64>,
    },
}

/// A line of `trace_pipe` that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("trace_pipe: {what} in the line {line:?}")]
pub struct BadLine {
    /// What is missing or wrong.
    pub what: &'static str,
    /// The line, or its beginning.
    pub line: String,
}

impl Line {
    /// Reads one line, without its end.
    ///
    /// # Errors
    /// It is neither a RST nor a note of lost events.
    pub fn parse(line: &str) -> Result<Self, BadLine> {
        let parsed = if line.starts_with("CPU:") {
            lost(line).ok_or("no count of lost events")
        } else {
            reset(line).map(Line::Reset)
        };
        parsed.map_err(|what| BadLine {
            what,
            line: line.chars().take(SHOWN).collect(),
        })
    }
}

/// `CPU:1 [LOST 17 EVENTS]` or `CPU:1 [LOST EVENTS]` (`print_trace_line`).
fn lost(line: &str) -> Option<Line> {
    let (cpu, rest) = line.strip_prefix("CPU:")?.split_once(' ')?;
    let count = rest
        .trim()
        .strip_prefix("[LOST ")?
        .strip_suffix("EVENTS]")?
        .trim();
    Some(Line::Lost {
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
/// The name of the thread may hold anything, so what is before the event is read from its right end.
fn reset(line: &str) -> Result<ResetEvent, &'static str> {
    let (head, fields) = line
        .rsplit_once(": tcp_send_reset: ")
        .ok_or("no tcp_send_reset")?;
    let (head, time) = last_word(head).ok_or("no time")?;
    let time = seconds(time).ok_or("no time")?;
    let (head, flags) = last_word(head).ok_or("no flags")?;
    let (head, cpu) = last_word(head).ok_or("no cpu")?;
    let cpu = cpu
        .strip_prefix('[')
        .and_then(|cpu| cpu.strip_suffix(']')?.parse().ok())
        .ok_or("no cpu")?;
    let (head, process) = process(head);
    let (comm, pid) = head.trim().rsplit_once('-').ok_or("no pid")?;
    let pid = pid.parse().map_err(|_| "no pid")?;

    let field = |name: &str| {
        let mut words = fields.split_whitespace();
        words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    };
    // A RST that answers a segment has that segment here (`tcp_v4_send_reset`), one that a close sends has none
    // (`tcp_send_active_reset`). The third flag is `s` in a softirq and `h` in an interrupt (timers, arrivals).
    let answers = field("skbaddr").is_none_or(|address| address.bytes().any(|digit| digit != b'0'));
    let in_interrupt = flags.as_bytes().get(2).is_none_or(|&flag| flag != b'.');
    let socket_address = |name| -> Option<SocketAddr> {
        let address: SocketAddr = field(name)?.parse().ok()?;
        Some(canonical(address))
    };
    Ok(ResetEvent {
        time,
        comm: (comm != "<...>").then(|| comm.to_owned()),
        pid,
        process,
        cpu,
        own_call: !answers && !in_interrupt,
        source: socket_address("src").ok_or("no src address")?,
        destination: Some(socket_address("dest").ok_or("no dest address")?)
            .filter(|address| address.port() != 0),
        state: field("state").and_then(|word| word.parse().ok()),
        reason: field("reason").and_then(|word| word.parse().ok()),
    })
}

fn last_word(text: &str) -> Option<(&str, &str)> {
    text.trim_end().rsplit_once(' ')
}

/// Takes off `(   7006476)` or `(-------)`, which the option `record-tgid` adds.
fn process(head: &str) -> (&str, Option<u32>) {
    let head = head.trim_end();
    let Some((before, number)) = head
        .strip_suffix(')')
        .and_then(|head| head.rsplit_once('('))
    else {
        return (head, None);
    };
    let number = number.trim();
    if number.starts_with('-') {
        return (before, None);
    }
    match number.parse() {
        Ok(process) => (before, Some(process)),
        Err(_) => (head, None),
    }
}

/// Seconds with six digits of a fraction.
fn seconds(text: &str) -> Option<Duration> {
    let (whole, fraction) = text.split_once('.')?;
    let micros: u32 = (fraction.len() == 6).then_some(fraction)?.parse().ok()?;
    let whole = Duration::from_secs(whole.parse().ok()?);
    whole.checked_add(Duration::from_micros(u64::from(micros)))
}

/// A dual-stack socket is told as `::ffff:127.0.0.1` while it exists and as `127.0.0.1` afterwards.
fn canonical(address: SocketAddr) -> SocketAddr {
    let ip: IpAddr = address.ip().to_canonical();
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Process, Reason, State};

    const CLOSE: &str = "         python3-7006476    [001] .....  4743.101043: tcp_send_reset: \
        skbaddr=0000000000000000 skaddr=0000000096df4793 src=127.0.0.1:52315 dest=127.0.0.1:50080 \
        state=TCP_CLOSE reason=TCP_ABORT_ON_CLOSE";

    fn event(line: &str) -> ResetEvent {
        match Line::parse(line) {
            Ok(Line::Reset(event)) => event,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn reads_what_a_close_prints() {
        let event = event(CLOSE);
        assert_eq!(
            event,
            ResetEvent {
                time: Duration::from_micros(4_743_101_043),
                comm: Some("python3".to_owned()),
                pid: 7006476,
                process: None,
                cpu: 1,
                own_call: true,
                source: "127.0.0.1:52315".parse().unwrap(),
                destination: "127.0.0.1:50080".parse().ok(),
                state: Some(State::Close),
                reason: Some(Reason::AbortOnClose),
            }
        );
    }

    #[test]
    fn an_answer_to_a_segment_names_nobody() {
        let line = " ksoftirqd/1-22  (     22) [001] ..s1.  4743.568057: tcp_send_reset: \
            skbaddr=0000000093c1d8d9 skaddr=0 src=1.2.3.4:1 dest=1.2.3.4:2 state=UNKNOWN reason=NO_SOCKET";
        assert_eq!(event(line).sender(), None);
        // A timer: nothing is answered, yet the thread is not the one.
        let timer = CLOSE.replace("..... ", "..s1. ");
        assert_eq!(event(&timer).sender(), None);
        // A segment that a process handed in itself, as a tunnel does.
        let tunnel = CLOSE.replace("skbaddr=0000000000000000", "skbaddr=0000000000000001");
        assert_eq!(event(&tunnel).sender(), None);
    }

    #[test]
    fn the_process_is_not_the_thread() {
        let line = CLOSE.replace("-7006476    [", "-7006476 (   7006400) [");
        let sender = Process {
            name: Some("python3".to_owned()),
            pid: 7006400,
        };
        assert_eq!(event(&line).sender(), Some(sender));
        let unknown = CLOSE.replace("-7006476    [", "-7006476 (-------) [");
        assert_eq!(event(&unknown).sender().map(|it| it.pid), Some(7006476));
    }

    #[test]
    fn a_name_may_hold_anything() {
        for name in [
            "a-1 [0]",
            "x: y",
            "(12)",
            "kworker/u4:1-ev",
            "ä b",
            "(5) [001]",
        ] {
            let line = CLOSE.replace("python3", name);
            assert_eq!(event(&line).comm.as_deref(), Some(name));
        }
        assert_eq!(event(&CLOSE.replace("python3", "<...>")).comm, None);
    }

    #[test]
    fn reads_ipv6_and_tells_mapped_addresses_as_ipv4() {
        let line = CLOSE.replace("127.0.0.1:52315", "[2001:db8::1]:443");
        assert_eq!(event(&line).source, "[2001:db8::1]:443".parse().unwrap());
        let line = CLOSE.replace("127.0.0.1:52315", "[::ffff:127.0.0.1]:52315");
        assert_eq!(event(&line).source, event(CLOSE).source);
    }

    #[test]
    fn an_older_kernel_prints_less() {
        let line = CLOSE.replace(" reason=TCP_ABORT_ON_CLOSE", "");
        assert_eq!(event(&line).reason, None);
        let line = CLOSE.replace("TCP_ABORT_ON_CLOSE", "0x1b");
        assert_eq!(event(&line).reason, Some(Reason::Other("0x1b".into())));
    }

    #[test]
    fn a_listener_has_no_peer() {
        let line = CLOSE.replace("127.0.0.1:50080", "0.0.0.0:0");
        assert_eq!(event(&line).destination, None);
    }

    #[test]
    fn lost_events_are_read() {
        let lost = |cpu, events| Ok(Line::Lost { cpu, events });
        assert_eq!(Line::parse("CPU:1 [LOST 17 EVENTS]"), lost(1, Some(17)));
        assert_eq!(Line::parse("CPU:0 [LOST EVENTS]"), lost(0, None));
    }

    #[test]
    fn a_bad_line_is_named() {
        let bad = |line: &str, what| {
            let error = Line::parse(line).unwrap_err();
            assert_eq!((error.what, error.line.as_str()), (what, line));
            assert!(error.to_string().contains(what));
        };
        bad("", "no tcp_send_reset");
        bad("        a-1 [0", "no tcp_send_reset");
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
        assert_eq!(Line::parse(&long).unwrap_err().line.len(), SHOWN);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,200}") {
            let _ = Line::parse(&text);
        }

        /// Cut, doubled or overwritten somewhere: an event or an error, never a panic.
        #[test]
        fn no_broken_line_makes_it_panic(at in 0..CLOSE.len(), bytes in 0_usize..20, with in "\\PC{0,9}") {
            let end = (at + bytes).min(CLOSE.len());
            let _ = Line::parse(&format!("{}{with}{}", &CLOSE[..at], &CLOSE[end..]));
            let _ = Line::parse(&format!("CPU:{with}"));
        }

        #[test]
        fn reads_what_the_kernel_would_write(
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
            prop_assert_eq!(event.comm.unwrap_or("<...>".into()), comm);
            prop_assert_eq!((event.pid, event.process, event.cpu), (pid, Some(pid), 3));
            prop_assert_eq!(event.time, Duration::from_micros(micros));
            prop_assert_eq!(event.source, canonical(source));
            prop_assert!(event.own_call);
        }
    }
}
