//! The system calls of `server` and `client`, one function each; with `--trace` they are printed as strace prints them.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rstlab_wire::queues;
use socket2::{Domain, Socket, Type};

use crate::shared::errno;

/// Connections that the kernel may hold for us, as many as the standard library asks for.
const BACKLOG: i32 = 128;

/// The error of `connect(2)` while the kernel is still connecting.
const EINPROGRESS: i32 = 115;

/// The bytes of one sendto.
static PIECE: [u8; 64 * 1024] = [b'x'; 64 * 1024];

/// Length of a `struct sockaddr_in`.
const ADDRESS_BYTES: usize = 16;

/// Bytes of a buffer that are shown, as many as strace shows.
const SHOWN_BYTES: usize = 32;

/// socket, setsockopt, bind, listen.
pub(crate) fn listen(address: SocketAddr, trace: bool) -> io::Result<TcpListener> {
    let socket = socket(trace)?;
    let fd = socket.as_raw_fd();
    told(begin(trace), socket.set_reuse_address(true), |_| {
        (
            0,
            format!("setsockopt({fd}, SOL_SOCKET, SO_REUSEADDR, [1], 4)"),
        )
    })?;
    told(begin(trace), socket.bind(&address.into()), |_| {
        (
            0,
            format!("bind({fd}, {}, {ADDRESS_BYTES})", shown(Some(&address))),
        )
    })?;
    told(begin(trace), socket.listen(BACKLOG), |_| {
        (0, format!("listen({fd}, {BACKLOG})"))
    })?;
    Ok(socket.into())
}

/// getsockname: the address of a listener.
pub(crate) fn local_address(listener: &TcpListener, trace: bool) -> io::Result<SocketAddr> {
    told(begin(trace), listener.local_addr(), |address| {
        let (fd, address) = (listener.as_raw_fd(), shown(address));
        (
            0,
            format!("getsockname({fd}, {address}, [128 => {ADDRESS_BYTES}])"),
        )
    })
}

/// accept4.
pub(crate) fn accept(listener: &TcpListener, trace: bool) -> io::Result<(TcpStream, SocketAddr)> {
    told(begin(trace), listener.accept(), |accepted| {
        let fd = listener.as_raw_fd();
        let address = shown(accepted.map(|(_, address)| address));
        let call = format!("accept4({fd}, {address}, [128 => {ADDRESS_BYTES}], SOCK_CLOEXEC)");
        (
            accepted.map_or(0, |(stream, _)| stream.as_raw_fd().into()),
            call,
        )
    })
}

/// socket, setsockopt, connect. The limit also holds for everything that is sent later.
pub(crate) fn connect(address: SocketAddr, limit: Duration, trace: bool) -> io::Result<TcpStream> {
    let socket = socket(trace)?;
    let fd = socket.as_raw_fd();
    told(begin(trace), socket.set_write_timeout(Some(limit)), |_| {
        (0, time_limit(fd, "SO_SNDTIMEO", limit))
    })?;
    let connected = told(begin(trace), socket.connect(&address.into()), |_| {
        (
            0,
            format!("connect({fd}, {}, {ADDRESS_BYTES})", shown(Some(&address))),
        )
    });
    match connected {
        Ok(()) => Ok(socket.into()),
        // connect(2): a time limit for sending ends with this error.
        Err(error) if error.raw_os_error() == Some(EINPROGRESS) => {
            Err(io::ErrorKind::TimedOut.into())
        }
        Err(error) => Err(error),
    }
}

/// setsockopt: the longest wait in one sendto.
pub(crate) fn limit_sending(stream: &TcpStream, limit: Duration, trace: bool) -> io::Result<()> {
    told(begin(trace), stream.set_write_timeout(Some(limit)), |_| {
        (0, time_limit(stream.as_raw_fd(), "SO_SNDTIMEO", limit))
    })
}

/// setsockopt: the longest wait in one recvfrom.
pub(crate) fn limit_reading(stream: &TcpStream, limit: Duration, trace: bool) -> io::Result<()> {
    told(begin(trace), stream.set_read_timeout(Some(limit)), |_| {
        (0, time_limit(stream.as_raw_fd(), "SO_RCVTIMEO", limit))
    })
}

/// sendto.
fn send(stream: &mut TcpStream, bytes: &[u8], trace: bool) -> io::Result<usize> {
    told(begin(trace), stream.write(bytes), |sent| {
        let (fd, data, length) = (stream.as_raw_fd(), data(bytes), bytes.len());
        let call = format!("sendto({fd}, {data}, {length}, MSG_NOSIGNAL, NULL, 0)");
        (sent.map_or(0, |sent| *sent as i64), call)
    })
}

/// sendto, until `bytes` bytes are sent. `sent` counts those that the kernel took, also if a call fails.
pub(crate) fn send_all(
    stream: &mut TcpStream,
    bytes: u64,
    sent: &mut u64,
    trace: bool,
) -> io::Result<()> {
    while *sent < bytes {
        let left = usize::try_from(bytes - *sent).unwrap_or(usize::MAX);
        match send(stream, &PIECE[..left.min(PIECE.len())], trace) {
            Ok(taken) => *sent += taken as u64,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// recvfrom.
pub(crate) fn receive(stream: &mut TcpStream, buf: &mut [u8], trace: bool) -> io::Result<usize> {
    told(begin(trace), stream.read(buf), |read| {
        // strace shows a pointer if nothing was read.
        let data = read.map_or("...".to_owned(), |bytes| data(&buf[..*bytes]));
        let (fd, length) = (stream.as_raw_fd(), buf.len());
        let call = format!("recvfrom({fd}, {data}, {length}, 0, NULL, NULL)");
        (read.map_or(0, |read| *read as i64), call)
    })
}

/// ioctl: bytes that lie unread; none if it fails.
pub(crate) fn unread(stream: &TcpStream, trace: bool) -> u64 {
    let unread = told(begin(trace), queues::unread(stream), |bytes| {
        let (fd, bytes) = (stream.as_raw_fd(), bytes.copied().unwrap_or(0));
        (0, format!("ioctl({fd}, FIONREAD, [{bytes}])"))
    });
    unread.unwrap_or(0)
}

/// close. It always gives the descriptor back, whatever it returns (close(2)).
pub(crate) fn close(stream: TcpStream, trace: bool) {
    let (fd, began) = (stream.as_raw_fd(), begin(trace));
    drop(stream);
    let _ = told(began, Ok(()), |_| (0, format!("close({fd})")));
}

/// clock_nanosleep; no call if there is no time to sleep.
pub(crate) fn sleep(time: Duration, trace: bool) {
    if time.is_zero() {
        return;
    }
    let began = begin(trace);
    thread::sleep(time);
    let (secs, nanos) = (time.as_secs(), time.subsec_nanos());
    let _ = told(began, Ok(()), |_| {
        let time = format!("{{tv_sec={secs}, tv_nsec={nanos}}}");
        (
            0,
            format!("clock_nanosleep(CLOCK_MONOTONIC, 0, {time}, ...)"),
        )
    });
}

fn socket(trace: bool) -> io::Result<Socket> {
    let call = "socket(AF_INET, SOCK_STREAM|SOCK_CLOEXEC, IPPROTO_IP)";
    told(
        begin(trace),
        Socket::new(Domain::IPV4, Type::STREAM, None),
        |socket| {
            (
                socket.map_or(0, |socket| socket.as_raw_fd().into()),
                call.to_owned(),
            )
        },
    )
}

fn time_limit(fd: i32, option: &str, limit: Duration) -> String {
    let (secs, micros) = (limit.as_secs(), limit.subsec_micros());
    format!("setsockopt({fd}, SOL_SOCKET, {option}, {{tv_sec={secs}, tv_usec={micros}}}, 16)")
}

/// An address as strace shows a `struct sockaddr`; a pointer if the kernel was to fill it in and failed.
fn shown(address: Option<&SocketAddr>) -> String {
    address.map_or("...".to_owned(), |address| {
        let (port, ip) = (address.port(), address.ip());
        format!("{{sa_family=AF_INET, sin_port=htons({port}), sin_addr=inet_addr(\"{ip}\")}}")
    })
}

/// The beginning of a buffer: `"xxxx"...`.
fn data(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(SHOWN_BYTES)];
    let more = if shown.len() < bytes.len() { "..." } else { "" };
    format!("\"{}\"{more}", shown.escape_ascii())
}

/// When a call began, if it is traced.
type Began = Option<(SystemTime, Instant)>;

fn begin(trace: bool) -> Began {
    trace.then(|| (SystemTime::now(), Instant::now()))
}

/// Prints a call that has been made, if it is traced. `shown` makes the value that it returned and its text.
fn told<T>(
    began: Began,
    made: io::Result<T>,
    shown: impl FnOnce(Option<&T>) -> (i64, String),
) -> io::Result<T> {
    if let Some((at, clock)) = began {
        let took = clock.elapsed();
        let (value, call) = shown(made.as_ref().ok());
        let line = line(at, took, made.as_ref().map(|_| value), &call);
        // One write for each line. If nobody reads it, the program goes on.
        let _ = io::stderr().write_all(line.as_bytes());
    }
    made
}

/// `10:06:59.925898 close(4) = 0 <0.000012>`, the time in UTC as in the log.
fn line(at: SystemTime, took: Duration, returned: Result<i64, &io::Error>, call: &str) -> String {
    let date = humantime::format_rfc3339_micros(at).to_string();
    let time = date.get(11..26).unwrap_or(&date);
    let returned = returned.map_or_else(failed, |value| value.to_string());
    let (secs, micros) = (took.as_secs(), took.subsec_micros());
    format!("{time} {call} = {returned} <{secs}.{micros:06}>\n")
}

/// `-1 ECONNRESET (Connection reset by peer)`
fn failed(error: &io::Error) -> String {
    let Some(errno) = error.raw_os_error() else {
        return format!("-1 ({error})");
    };
    let name = errno::name(errno).unwrap_or_else(|| format!("errno {errno}"));
    format!("-1 {name} ({})", errno::text(errno))
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
        assert!(failed(&io::Error::from_raw_os_error(12)).starts_with("-1 ENOMEM ("));
        assert!(failed(&io::Error::from_raw_os_error(4095)).starts_with("-1 errno 4095 ("));
    }

    #[test]
    fn a_buffer_shows_32_bytes() {
        assert_eq!(data(b""), "\"\"");
        assert_eq!(data(b"a\n\""), r#""a\n\"""#);
        let text = "x".repeat(32);
        assert_eq!(data(text.as_bytes()), format!("\"{text}\""));
        assert_eq!(data(&[b'x'; 33]), format!("\"{text}\"..."));
    }
}
