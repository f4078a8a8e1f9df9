//! `--trace`: system calls as strace prints them, without strace.

use std::fmt;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

/// Bytes of a buffer that are shown, as many as strace shows.
const SHOWN_BYTES: usize = 32;

/// Whether to tell each call on standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trace {
    Off,
    On,
}

/// A call's beginning.
pub(crate) struct Began {
    at: SystemTime,
    clock: Instant,
}

impl Trace {
    pub(crate) fn new(on: bool) -> Self {
        if on { Trace::On } else { Trace::Off }
    }

    /// A call is about to be made.
    pub(crate) fn begin(self) -> Option<Began> {
        match self {
            Trace::Off => None,
            Trace::On => Some(Began {
                at: SystemTime::now(),
                clock: Instant::now(),
            }),
        }
    }
}

impl Began {
    /// It has been made: tells it, with what it returned.
    pub(crate) fn end(self, returned: Result<i64, &io::Error>, call: impl fmt::Display) {
        let took = self.clock.elapsed();
        let line = line(self.at, took, returned, call);
        // One write for one line; nobody reads it: no reason to stop.
        let _ = io::stderr().write_all(line.as_bytes());
    }
}

/// `10:06:59.925898 close(4) = 0 <0.000012>`, the time in UTC as in the log.
fn line(
    at: SystemTime,
    took: Duration,
    returned: Result<i64, &io::Error>,
    call: impl fmt::Display,
) -> String {
    let date = humantime::format_rfc3339_micros(at).to_string();
    let time = date.get(11..26).unwrap_or(&date);
    let returned = match returned {
        Ok(value) => value.to_string(),
        Err(error) => failed(error),
    };
    let (secs, micros) = (took.as_secs(), took.subsec_micros());
    format!("{time} {call} = {returned} <{secs}.{micros:06}>\n")
}

/// `-1 ECONNRESET (Connection reset by peer)`
fn failed(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    match error.raw_os_error() {
        Some(errno) => format!("-1 {} ({text})", name(errno)),
        None => format!("-1 ({text})"),
    }
}

/// `104 ECONNRESET`
pub(crate) fn numbered(errno: i32) -> String {
    let name = name(errno);
    if name.starts_with("errno") {
        return name;
    }
    format!("{errno} {name}")
}

/// What the calls of `server` and `client` fail with (`asm-generic/errno.h`); the number for anything else.
fn name(errno: i32) -> String {
    let name = match errno {
        4 => "EINTR",
        11 => "EAGAIN",
        13 => "EACCES",
        23 => "ENFILE",
        24 => "EMFILE",
        32 => "EPIPE",
        98 => "EADDRINUSE",
        103 => "ECONNABORTED",
        104 => "ECONNRESET",
        105 => "ENOBUFS",
        110 => "ETIMEDOUT",
        111 => "ECONNREFUSED",
        115 => "EINPROGRESS",
        _ => return format!("errno {errno}"),
    };
    name.to_owned()
}

/// An address as strace shows a `struct sockaddr`.
pub(crate) struct Address(pub(crate) SocketAddr);

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (port, address) = (self.0.port(), self.0.ip());
        write!(
            f,
            "{{sa_family=AF_INET, sin_port=htons({port}), sin_addr=inet_addr(\"{address}\")}}"
        )
    }
}

/// The beginning of a buffer: `"xxxx"...`.
pub(crate) struct Data<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Data<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.0[..self.0.len().min(SHOWN_BYTES)];
        let more = if shown.len() < self.0.len() {
            "..."
        } else {
            ""
        };
        write!(f, "\"{}\"{more}", shown.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_reads_as_strace_s() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_micros(36_419_925_898);
        let took = Duration::from_nanos(1_000_012_999);
        assert_eq!(
            line(at, took, Ok(0), "close(4)"),
            "10:06:59.925898 close(4) = 0 <1.000012>\n"
        );
        let reset = io::Error::from_raw_os_error(104);
        let line = line(at, took, Err(&reset), "recvfrom(3)");
        assert!(
            line.contains("recvfrom(3) = -1 ECONNRESET (Connection reset by peer) <"),
            "{line}"
        );
        assert!(failed(&io::Error::from_raw_os_error(12)).starts_with("-1 errno 12 ("));
    }

    #[test]
    fn a_buffer_shows_32_bytes() {
        assert_eq!(Data(b"").to_string(), "\"\"");
        assert_eq!(Data(b"a\n\"").to_string(), r#""a\n\"""#);
        let text = "x".repeat(32);
        assert_eq!(Data(text.as_bytes()).to_string(), format!("\"{text}\""));
        assert_eq!(Data(&[b'x'; 33]).to_string(), format!("\"{text}\"..."));
    }
}
