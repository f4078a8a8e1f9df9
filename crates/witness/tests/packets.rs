//! What the packets of a connection prove, made with real sockets and compared with the kernel's word, with tcpdump
//! and with tshark. Needs root and a mounted tracefs: `cargo test -p rstlab-witness --features kernel`.

#![cfg(feature = "kernel")]
#![allow(clippy::unwrap_used)]

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rstlab_witness::{
    Cause, Conversation, Ending, KernelTrace, Known, Packet, Packets, Pair, Place, Reason, Scope,
    State, TraceEvent, Unavailable, Verdict, read_pcapng, write_pcapng,
};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use socket2::{Domain, SockRef, Socket, Type};

/// Longest wait for what must come.
const PATIENCE: Duration = Duration::from_secs(10);

/// Longest time until an orphan in FIN-WAIT-2 is a time-wait: its timer runs for up to 60 s (`tcp_fin_timeout`).
const MAX_FIN_WAIT: Duration = Duration::from_secs(70);

const LOOPBACK: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
    SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 0),
];

/// An address at which nobody listens.
fn free(address: SocketAddr) -> SocketAddr {
    TcpListener::bind(address).unwrap().local_addr().unwrap()
}

fn trace() -> KernelTrace {
    let trace = KernelTrace::open(Scope::Resets(&[])).expect("these tests need root and tracefs");
    assert!(trace.format().tells_closes_apart(), "Linux 6.12 or newer");
    trace
}

/// A connection whose packets are captured, and whose server's side is to be reset.
struct Watched {
    kernel: KernelTrace,
    packets: Packets,
    listener: TcpListener,
    server: TcpStream,
    client: TcpStream,
    ends: [SocketAddr; 2],
}

impl Watched {
    fn new(address: SocketAddr) -> Self {
        Self::on(TcpListener::bind(address).unwrap(), address)
    }

    /// A connection to `listener` at an address.
    fn on(listener: TcpListener, mut address: SocketAddr) -> Self {
        let kernel = trace();
        let port = listener.local_addr().unwrap().port();
        address.set_port(port);
        let packets = Packets::open(port).unwrap();
        let client = TcpStream::connect(address).unwrap();
        let (server, _) = listener.accept().unwrap();
        let ends = [address, client.local_addr().unwrap()];
        Self {
            kernel,
            packets,
            listener,
            server,
            client,
            ends,
        }
    }

    /// Sends bytes to the server and waits until one lies there.
    fn unread(&mut self, bytes: &[u8]) {
        self.client.write_all(bytes).unwrap();
        self.server.peek(&mut [0]).unwrap();
    }

    /// Closes the server's side and waits until the client's is reset.
    async fn close(self) -> Outcome {
        drop(self.server);
        reset(&self.client);
        outcome(self.kernel, &self.packets, self.ends).await
    }

    /// As [`close`](Self::close), the client sending a byte in between.
    async fn close_and_send(mut self, before: impl FnOnce([SocketAddr; 2])) -> Outcome {
        drop(self.server);
        before(self.ends);
        self.client.write_all(b"x").unwrap();
        reset(&self.client);
        outcome(self.kernel, &self.packets, self.ends).await
    }
}

/// What the kernel and the packets say of the first RST from a server to a client.
#[derive(Debug, PartialEq)]
struct Outcome {
    reason: Reason,
    state: State,
    /// The cause of the verdict, from the kernel's word alone.
    cause: Cause,
    from_server: bool,
    answers: bool,
    refuses: bool,
    fin_before: bool,
    fin_acked_before: bool,
    received_bytes: u64,
}

impl Outcome {
    /// A RST that a call of the server sent.
    fn own(reason: Reason, cause: Cause, received_bytes: u64) -> Self {
        Self {
            reason,
            state: State::Close,
            cause,
            from_server: true,
            answers: false,
            refuses: false,
            fin_before: false,
            fin_acked_before: false,
            received_bytes,
        }
    }
}

async fn outcome(
    mut kernel: KernelTrace,
    packets: &Packets,
    [server, client]: [SocketAddr; 2],
) -> Outcome {
    let conversation = packets.conversation(Pair::new(server, client)).await;
    let ending = conversation.expect("it was captured").ending();
    assert!(!ending.is_of_a_part(), "{ending:?}");
    let Ending::Reset {
        from,
        at_ns,
        answers,
        refuses,
        fin_before,
        fin_acked_before,
        received_bytes,
        ..
    } = ending
    else {
        panic!("{ending:?}")
    };
    let told = tokio::time::timeout(PATIENCE, async {
        loop {
            let mut events = Vec::new();
            kernel.next(&mut events).await.unwrap();
            for event in events {
                match event {
                    TraceEvent::Reset(it)
                        if it.event.source == server && it.event.destination == Some(client) =>
                    {
                        return it;
                    }
                    _ => {}
                }
            }
        }
    });
    let told = told.await.expect("the kernel tells of the RST");
    // Kernel and packets use one clock, so about the same time means the same RST.
    assert!(
        Duration::from_nanos(at_ns).abs_diff(told.event.stamp.time) < Duration::from_millis(500),
        "{at_ns} {told:?}"
    );
    assert_eq!(told.place, Place::First, "{told:?}");
    let verdict = Verdict::of(&told.evidence(), server);
    assert_eq!(verdict.known, Known::Proved, "{told:?}");
    let told = told.event;
    let sender = told.sender().map(|process| process.pid);
    assert_eq!(sender, (!answers).then(std::process::id), "{told:?}");
    assert_eq!(packets.lost(), 0);
    Outcome {
        reason: told.reason.expect("a reason"),
        state: told.state.expect("a state"),
        cause: verdict.cause,
        from_server: from == server,
        answers,
        refuses,
        fin_before,
        fin_acked_before,
        received_bytes,
    }
}

/// Waits until a RST has come: poll(2) then tells that the connection is over in both directions.
fn reset(client: &TcpStream) {
    let mut fds = [PollFd::new(client, PollFlags::empty())];
    let wait = rustix::event::Timespec::try_from(PATIENCE).unwrap();
    assert_eq!(poll(&mut fds, Some(&wait)).unwrap(), 1, "no RST has come");
}

#[tokio::test]
async fn unread_bytes_at_a_close_make_the_close_send_the_rst() {
    let dual_stack = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
    dual_stack.set_only_v6(false).unwrap();
    let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
    dual_stack.bind(&any.into()).unwrap();
    dual_stack.listen(8).unwrap();
    let mapped = Watched::on(dual_stack.into(), LOOPBACK[0]);
    for mut watched in [Watched::new(LOOPBACK[0]), Watched::new(LOOPBACK[1]), mapped] {
        watched.unread(b"unread");
        assert_eq!(
            watched.close().await,
            Outcome::own(Reason::AbortOnClose, Cause::UnreadAtClose, 6)
        );
    }
}

#[tokio::test]
async fn linger_zero_makes_the_close_send_the_rst() {
    for address in LOOPBACK {
        let watched = Watched::new(address);
        let linger = SockRef::from(&watched.server).set_linger(Some(Duration::ZERO));
        linger.unwrap();
        assert_eq!(
            watched.close().await,
            Outcome::own(Reason::TcpState, Cause::LingerZero, 0)
        );
    }
}

#[tokio::test]
async fn unread_bytes_at_a_close_after_a_half_close_come_after_a_fin() {
    for address in LOOPBACK {
        let mut watched = Watched::new(address);
        watched.server.shutdown(Shutdown::Write).unwrap();
        assert_eq!(watched.client.read(&mut [0]).unwrap(), 0);
        watched.unread(b"unread");
        let expected = Outcome {
            fin_before: true,
            fin_acked_before: true,
            ..Outcome::own(Reason::AbortOnClose, Cause::UnreadAtClose, 6)
        };
        assert_eq!(watched.close().await, expected);
    }
}

/// The server sends until nothing more goes: so its FIN stays behind.
#[tokio::test]
async fn data_after_close_is_answered() {
    for address in LOOPBACK {
        let mut watched = Watched::new(address);
        watched.server.set_nonblocking(true).unwrap();
        while watched.server.write(&[0; 65536]).is_ok() {}
        let expected = Outcome {
            answers: true,
            ..Outcome::own(Reason::AbortOnData, Cause::DataAfterClose, 1)
        };
        assert_eq!(watched.close_and_send(|_| ()).await, expected);
    }
}

/// An orphan in FIN-WAIT-2 is made a time-wait by a timer, at once or later: until then it is data after close.
#[tokio::test]
async fn late_data_is_answered_after_the_fin_was_acknowledged() {
    for address in LOOPBACK {
        let expected = Outcome {
            answers: true,
            fin_before: true,
            fin_acked_before: true,
            state: State::TimeWait,
            ..Outcome::own(Reason::TimewaitSocket, Cause::LateData, 1)
        };
        let outcome = Watched::new(address).close_and_send(until_time_wait).await;
        assert_eq!(outcome, expected);
    }
}

/// A time-wait has no owner and no inode; an orphan in FIN-WAIT-2 is told with the same state (05).
fn until_time_wait([server, client]: [SocketAddr; 2]) {
    let [port, peer] = [server, client].map(|end| format!(":{:04X} ", end.port()));
    let table = if server.is_ipv4() {
        "/proc/net/tcp"
    } else {
        "/proc/net/tcp6"
    };
    let words = [port.as_str(), &peer, " 05 ", " 03:"];
    let begun = Instant::now();
    while !std::fs::read_to_string(table)
        .unwrap()
        .lines()
        .any(|line| words.iter().all(|word| line.contains(word)))
    {
        assert!(begun.elapsed() < MAX_FIN_WAIT, "no time-wait");
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn a_refusal_answers_the_syn() {
    for address in LOOPBACK {
        let kernel = trace();
        let server = free(address);
        let packets = Packets::open(server.port()).unwrap();
        let client = Socket::new(Domain::for_address(server), Type::STREAM, None).unwrap();
        client.bind(&address.into()).unwrap();
        let error = client.connect(&server.into()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        let client = client.local_addr().unwrap().as_socket().unwrap();
        let expected = Outcome {
            answers: true,
            refuses: true,
            state: State::NoSocket,
            ..Outcome::own(Reason::NoSocket, Cause::Refused, 0)
        };
        assert_eq!(outcome(kernel, &packets, [server, client]).await, expected);
    }
}

#[tokio::test]
async fn a_close_without_a_reset_is_told_by_its_fin() {
    for address in LOOPBACK {
        let Watched {
            packets,
            server,
            mut client,
            ends,
            ..
        } = Watched::new(address);
        let pair = Pair::new(ends[0], ends[1]);
        let ending = async || packets.conversation(pair).await.unwrap().ending();
        assert_eq!(ending().await, Ending::Open);
        drop(server);
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        assert!(matches!(ending().await, Ending::Closed { from, .. } if from == ends[0]));
    }
}

#[tokio::test]
async fn a_port_that_is_used_again_is_another_conversation() {
    let watched = Watched::new(LOOPBACK[0]);
    let listener = &watched.listener;
    // The address is used by this test only: on another one somebody else may take the port before it is used again.
    let connect = |port| {
        let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let from = SocketAddr::from(([127, 0, 0, 2], port));
        client.bind(&from.into()).unwrap();
        client.connect(&watched.ends[0].into()).unwrap();
        let (server, from) = listener.accept().unwrap();
        for side in [SockRef::from(&client), SockRef::from(&server)] {
            side.set_linger(Some(Duration::ZERO)).unwrap();
        }
        (client, server, from)
    };
    let (client, server, from) = connect(0);
    let pair = Pair::new(watched.ends[0], from);
    drop(client);
    reset(&server);
    let first = watched.packets.conversation(pair).await.unwrap();
    assert!(matches!(first.ending(), Ending::Reset { from: by, .. } if by == from));
    let _again = connect(from.port());
    let second = watched.packets.conversation(pair).await.unwrap();
    assert!(second.packets()[0].at > first.packets().last().unwrap().at);
    assert_eq!(second.packets()[0].flags.to_string(), "[S]");
}

/// Segments of other ports, and those from before the capture began, are not captured.
#[tokio::test]
async fn only_the_port_asked_for_is_captured() {
    let watched = Watched::new(LOOPBACK[0]);
    let others = [watched.client.local_addr(), watched.listener.local_addr()].map(Result::unwrap);
    let pair = Pair::new(others[0], others[1]);
    let other = Packets::open(free(LOOPBACK[0]).port()).unwrap();
    assert_eq!(other.conversation(pair).await, None);
    let late = Packets::open(others[1].port()).unwrap();
    assert_eq!(late.conversation(pair).await, None);
    (&watched.client).write_all(b"x").unwrap();
    let packets = late.conversation(pair).await.unwrap();
    assert_eq!(packets.packets()[0].flags.to_string(), "[P.]");
}

/// A thread that has ended has closed its socket.
#[tokio::test]
async fn the_payload_of_packets_is_captured_if_it_is_asked_for() {
    for address in LOOPBACK {
        let listener = TcpListener::bind(address).unwrap();
        let server = listener.local_addr().unwrap();
        let captures = [
            (Packets::open(server.port()).unwrap(), 164),
            (Packets::with_payload(server.port()).unwrap(), 1500),
        ];
        let mut client = TcpStream::connect(server).unwrap();
        let (mut accepted, peer) = listener.accept().unwrap();
        client.write_all(&[b'x'; 4000]).unwrap();
        accepted.read_exact(&mut [0; 4000]).unwrap();
        for (packets, kept) in captures {
            let found = packets.conversation(Pair::new(server, peer)).await;
            let found = found.unwrap();
            let mut data = found.packets().iter().filter(|it| it.payload_bytes > 0);
            assert_eq!(data.next().unwrap().bytes().len(), kept);
        }
    }
}

#[tokio::test]
async fn the_capture_ends_with_its_last_handle() {
    let port = free(LOOPBACK[0]).port();
    let runs = || {
        let threads = std::fs::read_dir("/proc/self/task").unwrap();
        let name = format!("packets {port}\n");
        // Threads of other tests end while we look.
        let mut names =
            threads.filter_map(|it| std::fs::read_to_string(it.unwrap().path().join("comm")).ok());
        names.any(|it| it == name)
    };
    let packets = Packets::open(port).unwrap();
    let other = packets.clone();
    drop(packets);
    let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
    assert_eq!(other.conversation(Pair::new(nobody, nobody)).await, None);
    assert!(runs());
    drop(other);
    // Joining a thread returns before the kernel takes it out of /proc (`exit_mm` before `release_task`).
    let begun = Instant::now();
    while runs() {
        assert!(begun.elapsed() < PATIENCE, "the thread runs on");
        std::thread::yield_now();
    }
}

#[test]
fn without_the_privilege_the_error_names_it() {
    // Each thread has its own privileges.
    let opened = std::thread::spawn(|| {
        let mut sets = capabilities(None).unwrap();
        sets.effective.remove(CapabilitySet::NET_RAW);
        set_capabilities(None, sets).unwrap();
        Packets::open(1)
    });
    let error = opened.join().unwrap().unwrap_err();
    assert!(
        matches!(error, Unavailable::CaptureForbidden { .. }),
        "{error:?}"
    );
    assert!(error.to_string().contains("CAP_NET_RAW"), "{error}");
}

/// The output of a program; its arguments have no blanks in them.
fn command(program: &str, arguments: &str) -> String {
    let output = Command::new(program)
        .args(arguments.split(' '))
        .output()
        .expect(program);
    let errors = String::from_utf8_lossy(&output.stderr);
    let complaints: Vec<_> = errors
        .lines()
        .filter(|line| {
            !line.starts_with("Running as user \"root\"") && !line.starts_with("reading from file")
        })
        .collect();
    assert!(
        output.status.success() && complaints.is_empty(),
        "{program}: {errors}"
    );
    String::from_utf8(output.stdout).unwrap()
}

/// A connection with a few requests, reset at its end.
async fn reset_conversation(address: SocketAddr) -> Conversation {
    let mut watched = Watched::new(address);
    for _ in 0..200 {
        watched.client.write_all(b"question").unwrap();
        watched.server.read_exact(&mut [0; 8]).unwrap();
        watched.server.write_all(&[b'a'; 100_000]).unwrap();
        watched.client.read_exact(&mut [0; 100_000]).unwrap();
    }
    watched.unread(b"unread");
    drop(watched.server);
    reset(&watched.client);
    let pair = Pair::new(watched.ends[0], watched.ends[1]);
    watched.packets.conversation(pair).await.unwrap()
}

#[tokio::test]
async fn tshark_reads_each_file_and_shows_the_reset_with_its_comment() {
    let dir = tempfile::tempdir().unwrap();
    for (address, name) in LOOPBACK.into_iter().zip(["4.pcapng", "6.pcapng"]) {
        let conversation = reset_conversation(address).await;
        assert!(conversation.left_out() > 0);
        let path = dir.path().join(name);
        let comment = "unread-at-close, proved: “6 bytes” unread";
        let out = std::fs::File::create(&path).unwrap();
        write_pcapng(out, &conversation, comment).unwrap();
        let file = path.to_str().unwrap();
        let tshark = |options: &str| command("tshark", &format!("-r {file} {options}"));
        let all = tshark("-T fields -e tcp.flags.str -e frame.comment");
        assert_eq!(all.lines().count(), conversation.packets().len());
        let numbers = |filter| {
            let fields = "-T fields -e frame.number -e frame.comment";
            tshark(&format!("-Y {filter} {fields}"))
        };
        let mut packets = conversation.packets().iter();
        let number = 1 + packets.position(|it| it.flags.rst()).unwrap();
        let resets = numbers("tcp.flags.reset==1");
        assert_eq!(resets, format!("{number}\t{comment}\n"));
        assert_eq!(numbers("frame.comment").lines().count(), 2);
        let damaged = tshark("-Y _ws.malformed||_ws.expert.severity==error");
        assert!(!damaged.contains("alformed"));
        assert!(command("capinfos", &format!("-k {file}")).contains(comment));
        same_as_far_as_kept(&conversation, &path);
    }
}

/// A file that was written reads back the same, but for the clock and the end of the payload: a file has only the wall
/// clock, and 64 bytes of payload are kept of what is read.
fn same_as_far_as_kept(written: &Conversation, path: &Path) {
    let read: Vec<_> = read_pcapng(path).unwrap().conversations().collect();
    assert_eq!(read.len(), 1);
    assert_eq!(read[0].packets().len(), written.packets().len());
    for (read, written) in read[0].packets().iter().zip(written.packets()) {
        let told = |it: &Packet, at| {
            let numbers = [it.seq, it.length(), it.payload_bytes, it.window.into()];
            (at, it.from, it.to, it.ack, it.flags, numbers)
        };
        assert_eq!(told(read, read.at), told(written, written.since_epoch()));
        assert!(written.bytes().starts_with(read.bytes()));
    }
}

struct Tcpdump(Child);

impl Tcpdump {
    /// Starts it, and waits until it listens. A buffer for whole packets would hold few of them.
    fn start(port: u16, file: &Path) -> Self {
        let mut child = Command::new("tcpdump")
            .args("-i lo --nano -U --immediate-mode -s 128 -B 16384 -Z root -w".split(' '))
            .arg(file)
            .args(["tcp", "port", &port.to_string()])
            .stderr(Stdio::piped())
            .spawn()
            .expect("tcpdump is installed");
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let listens = lines.any(|line| line.unwrap().contains("listening on"));
        assert!(listens, "tcpdump does not listen");
        std::thread::spawn(move || lines.for_each(drop));
        Self(child)
    }

    fn stop(mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        assert!(self.0.wait().unwrap().success());
    }
}

/// Each of many connections is reset in the middle of a large answer.
#[tokio::test]
async fn the_capture_has_the_same_segments_as_tcpdump() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tcpdump.pcap");
    let listener = TcpListener::bind(LOOPBACK[0]).unwrap();
    let server = listener.local_addr().unwrap();
    let packets = Packets::open(server.port()).unwrap();
    let tcpdump = Tcpdump::start(server.port(), &file);
    let mut pairs = Vec::new();
    for _ in 0..50 {
        let mut client = TcpStream::connect(server).unwrap();
        let (mut answering, peer) = listener.accept().unwrap();
        client.write_all(b"head").unwrap();
        answering.read_exact(&mut [0; 4]).unwrap();
        client.write_all(b"body").unwrap();
        answering.peek(&mut [0]).unwrap();
        let answer = std::thread::spawn(move || answering.write_all(&[b'a'; 600_000]));
        let mut received = Vec::new();
        let _ = client.read_to_end(&mut received);
        answer.join().unwrap().unwrap();
        reset(&client);
        pairs.push(Pair::new(server, peer));
    }
    let converted = dir.path().join("tcpdump.pcapng");
    // Both captures may still grow: tcpdump is slow, and an acknowledgment may yet be answered with an echo.
    let patience = Instant::now() + PATIENCE;
    let (ours, theirs) = loop {
        let mut ours = Vec::new();
        for pair in &pairs {
            ours.push(packets.conversation(*pair).await.unwrap());
        }
        let [from, to] = [&file, &converted].map(|path| path.to_str().unwrap());
        command("editcap", &format!("-F pcapng {from} {to}"));
        let theirs: Vec<_> = read_pcapng(&converted).unwrap().conversations().collect();
        let count = |all: &[Conversation]| all.iter().map(|it| it.packets().len()).sum::<usize>();
        if count(&ours) == count(&theirs) || Instant::now() > patience {
            break (ours, theirs);
        }
    };
    tcpdump.stop();
    assert_eq!(packets.lost(), 0);
    assert_eq!(theirs.len(), ours.len());
    for (theirs, ours) in theirs.iter().zip(&ours) {
        // The order may differ: each socket reads the clock by itself, and two processors handle packets at the same
        // time.
        let told = |it: &Conversation| {
            let packets = it.packets().iter();
            let told = packets.map(|it| {
                (
                    it.from,
                    it.seq,
                    it.ack,
                    it.flags.to_string(),
                    it.payload_bytes,
                )
            });
            let mut told: Vec<_> = told.collect();
            told.sort();
            told
        };
        assert_eq!(told(ours), told(theirs));
        assert!(matches!(
            ours.ending(),
            Ending::Reset {
                received_bytes: 8,
                ..
            }
        ));
    }
}
