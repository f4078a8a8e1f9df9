//! The system calls of `server` and `client`: one function for each, told if it is traced.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Duration;

use rstlab_wire::queues;
use socket2::{Domain, Socket, Type};

use crate::strace::{Address, Data, Trace};

/// Connections the kernel may hold for us, as many as the standard library asks for.
const BACKLOG: i32 = 128;

/// The kernel is still connecting.
const EINPROGRESS: i32 = 115;

/// Length of a `struct sockaddr_in`.
const ADDRESS_BYTES: usize = 16;

/// socket, setsockopt, bind, listen.
pub(crate) fn listen(address: SocketAddr, trace: Trace) -> io::Result<TcpListener> {
    let socket = socket(trace)?;
    let fd = socket.as_raw_fd();
    told(
        trace,
        || socket.set_reuse_address(true),
        || format!("setsockopt({fd}, SOL_SOCKET, SO_REUSEADDR, [1], 4)"),
    )?;
    let shown = Address(address);
    told(
        trace,
        || socket.bind(&address.into()),
        || format!("bind({fd}, {shown}, {ADDRESS_BYTES})"),
    )?;
    told(
        trace,
        || socket.listen(BACKLOG),
        || format!("listen({fd}, {BACKLOG})"),
    )?;
    Ok(socket.into())
}

/// getsockname: where a listener listens.
pub(crate) fn local_address(listener: &TcpListener, trace: Trace) -> io::Result<SocketAddr> {
    let fd = listener.as_raw_fd();
    let began = trace.begin();
    let address = listener.local_addr();
    if let Some(began) = began {
        let shown = shown(address.as_ref().ok());
        let call = format!("getsockname({fd}, {shown}, [128 => {ADDRESS_BYTES}])");
        began.end(address.as_ref().map(|_| 0), call);
    }
    address
}

/// accept4.
pub(crate) fn accept(listener: &TcpListener, trace: Trace) -> io::Result<(TcpStream, SocketAddr)> {
    let fd = listener.as_raw_fd();
    let began = trace.begin();
    let accepted = listener.accept();
    if let Some(began) = began {
        let shown = shown(accepted.as_ref().ok().map(|(_, peer)| peer));
        let call = format!("accept4({fd}, {shown}, [128 => {ADDRESS_BYTES}], SOCK_CLOEXEC)");
        let returned = accepted
            .as_ref()
            .map(|(stream, _)| stream.as_raw_fd().into());
        began.end(returned, call);
    }
    accepted
}

/// socket, setsockopt, connect. The limit holds for all that is sent later, too.
pub(crate) fn connect(address: SocketAddr, limit: Duration, trace: Trace) -> io::Result<TcpStream> {
    let socket = socket(trace)?;
    let fd = socket.as_raw_fd();
    told(
        trace,
        || socket.set_write_timeout(Some(limit)),
        || time_limit(fd, "SO_SNDTIMEO", limit),
    )?;
    let shown = Address(address);
    let connected = told(
        trace,
        || socket.connect(&address.into()),
        || format!("connect({fd}, {shown}, {ADDRESS_BYTES})"),
    );
    match connected {
        Ok(()) => Ok(socket.into()),
        // connect(2): that is how a send time-out is told.
        Err(error) if error.raw_os_error() == Some(EINPROGRESS) => {
            Err(io::ErrorKind::TimedOut.into())
        }
        Err(error) => Err(error),
    }
}

/// setsockopt: the longest wait in one sendto.
pub(crate) fn limit_sending(stream: &TcpStream, limit: Duration, trace: Trace) -> io::Result<()> {
    told(
        trace,
        || stream.set_write_timeout(Some(limit)),
        || time_limit(stream.as_raw_fd(), "SO_SNDTIMEO", limit),
    )
}

/// setsockopt: the longest wait in one recvfrom.
pub(crate) fn limit_reading(stream: &TcpStream, limit: Duration, trace: Trace) -> io::Result<()> {
    told(
        trace,
        || stream.set_read_timeout(Some(limit)),
        || time_limit(stream.as_raw_fd(), "SO_RCVTIMEO", limit),
    )
}

/// sendto.
pub(crate) fn send(stream: &mut TcpStream, bytes: &[u8], trace: Trace) -> io::Result<usize> {
    let began = trace.begin();
    let sent = stream.write(bytes);
    if let Some(began) = began {
        let (fd, data, length) = (stream.as_raw_fd(), Data(bytes), bytes.len());
        let call = format!("sendto({fd}, {data}, {length}, MSG_NOSIGNAL, NULL, 0)");
        began.end(sent.as_ref().map(|sent| *sent as i64), call);
    }
    sent
}

/// recvfrom.
pub(crate) fn receive(stream: &mut TcpStream, buf: &mut [u8], trace: Trace) -> io::Result<usize> {
    let began = trace.begin();
    let read = stream.read(buf);
    if let Some(began) = began {
        let (fd, length) = (stream.as_raw_fd(), buf.len());
        let call = match &read {
            Ok(bytes) => format!(
                "recvfrom({fd}, {}, {length}, 0, NULL, NULL)",
                Data(&buf[..*bytes])
            ),
            // strace shows a pointer.
            Err(_) => format!("recvfrom({fd}, ..., {length}, 0, NULL, NULL)"),
        };
        began.end(read.as_ref().map(|read| *read as i64), call);
    }
    read
}

/// ioctl: bytes that lie unread; none if it fails.
pub(crate) fn unread(stream: &TcpStream, trace: Trace) -> u64 {
    let began = trace.begin();
    let unread = queues::unread(stream);
    if let Some(began) = began {
        let bytes = unread.as_ref().map_or(0, |bytes| *bytes);
        let call = format!("ioctl({}, FIONREAD, [{bytes}])", stream.as_raw_fd());
        began.end(unread.as_ref().map(|_| 0), call);
    }
    unread.unwrap_or(0)
}

/// close. It always gives the descriptor back, whatever it returns (close(2)).
pub(crate) fn close(stream: TcpStream, trace: Trace) {
    let fd = stream.as_raw_fd();
    let began = trace.begin();
    drop(stream);
    if let Some(began) = began {
        began.end(Ok(0), format!("close({fd})"));
    }
}

/// clock_nanosleep; nothing if there is no time to sleep.
pub(crate) fn sleep(time: Duration, trace: Trace) {
    if time.is_zero() {
        return;
    }
    let began = trace.begin();
    thread::sleep(time);
    if let Some(began) = began {
        let (secs, nanos) = (time.as_secs(), time.subsec_nanos());
        let call =
            format!("clock_nanosleep(CLOCK_MONOTONIC, 0, {{tv_sec={secs}, tv_nsec={nanos}}}, ...)");
        began.end(Ok(0), call);
    }
}

fn socket(trace: Trace) -> io::Result<Socket> {
    let began = trace.begin();
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None);
    if let Some(began) = began {
        let returned = socket.as_ref().map(|socket| socket.as_raw_fd().into());
        began.end(
            returned,
            "socket(AF_INET, SOCK_STREAM|SOCK_CLOEXEC, IPPROTO_IP)",
        );
    }
    socket
}

/// A call that returns zero or fails.
fn told(
    trace: Trace,
    call: impl FnOnce() -> io::Result<()>,
    text: impl FnOnce() -> String,
) -> io::Result<()> {
    let began = trace.begin();
    let returned = call();
    if let Some(began) = began {
        began.end(returned.as_ref().map(|()| 0), text());
    }
    returned
}

fn time_limit(fd: i32, option: &str, limit: Duration) -> String {
    let (secs, micros) = (limit.as_secs(), limit.subsec_micros());
    format!("setsockopt({fd}, SOL_SOCKET, {option}, {{tv_sec={secs}, tv_usec={micros}}}, 16)")
}

/// An address that the kernel was to fill in; if it failed, strace shows a pointer.
fn shown(address: Option<&SocketAddr>) -> String {
    address.map_or("...".to_owned(), |address| Address(*address).to_string())
}
