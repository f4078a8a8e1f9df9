//! Each kind of reset, made with real sockets, and the kernel's word on it. Needs root and a mounted tracefs:
//! `cargo test -p rstlab-witness --features kernel`.

#![cfg(feature = "kernel")]

use std::io::{self, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use rstlab_witness::{
    Cause, Judged, Kernel, Ledger, Line, Place, Reason, Scope, State, monotonic_now,
};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// Longest wait for a reset that must come.
const PATIENCE: Duration = Duration::from_secs(10);

const V4: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const V6: SocketAddr = SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::LOCALHOST), 0);

/// A connection whose server's side is to be reset.
struct Pair {
    listener: TcpListener,
    server: TcpStream,
    client: TcpStream,
}

impl Pair {
    fn new(address: SocketAddr) -> io::Result<Self> {
        Self::accepted(TcpListener::bind(address)?, address)
    }

    fn accepted(listener: TcpListener, mut address: SocketAddr) -> io::Result<Self> {
        address.set_port(listener.local_addr()?.port());
        let client = TcpStream::connect(address)?;
        let (server, _) = listener.accept()?;
        Ok(Self {
            listener,
            server,
            client,
        })
    }

    /// Sends a byte to the server and waits until it lies there.
    fn unread_byte(&mut self) -> io::Result<()> {
        self.client.write_all(b"x")?;
        self.server.peek(&mut [0]).map(|_| ())
    }
}

/// What was seen of one connection.
struct Witness {
    kernel: Kernel,
    ledger: Ledger,
}

impl Witness {
    fn start() -> Self {
        let kernel = Kernel::open(Scope::Resets).expect("these tests need root and tracefs");
        assert!(kernel.format().tells_closes_apart(), "Linux 6.12 or newer");
        Self {
            kernel,
            ledger: Ledger::default(),
        }
    }

    /// The next `count` RSTs that `server` sends to `client`, or to nobody that the kernel names.
    async fn resets(
        &mut self,
        server: SocketAddr,
        client: SocketAddr,
        count: usize,
    ) -> Vec<Judged> {
        let mut found = Vec::new();
        let wait = async {
            let mut judged = Vec::new();
            while found.len() < count {
                let mut lines = Vec::new();
                let more = self.kernel.read(&mut lines);
                // Something that is held back comes with nothing after it.
                let _ = tokio::time::timeout(Duration::from_millis(100), more).await;
                for line in lines {
                    match line.expect("a sound line") {
                        Line::Reset(event) => self.ledger.see(event, &mut judged),
                        // Somebody else's.
                        Line::Kill(_) => {}
                        other => panic!("{other:?}"),
                    }
                }
                self.ledger.due(monotonic_now(), &mut judged);
                found.extend(judged.drain(..).filter(|it| {
                    it.event.source == server && it.event.destination.is_none_or(|to| to == client)
                }));
            }
        };
        if tokio::time::timeout(PATIENCE, wait).await.is_err() {
            panic!("{count} RSTs from {server} to {client}; seen: {found:?}");
        }
        found
    }

    /// The only RST of a connection, with what it must say.
    async fn sees(
        mut self,
        (server, client): (SocketAddr, SocketAddr),
        (reason, state): (Reason, State),
        cause: Cause,
        by_us: bool,
    ) {
        let resets = self.resets(server, client, 1).await;
        let Judged { event, place } = &resets[0];
        assert_eq!(*place, Place::First, "{event:?}");
        assert_eq!(
            (event.reason.as_ref(), event.state.as_ref()),
            (Some(&reason), Some(&state))
        );
        assert_eq!(
            Cause::of(event.reason.as_ref(), event.state.as_ref()),
            cause
        );
        let sender = event.sender().map(|process| process.pid);
        assert_eq!(sender, by_us.then(std::process::id), "{event:?}");
    }
}

fn ends(pair: &Pair) -> (SocketAddr, SocketAddr) {
    let ends = (pair.server.local_addr(), pair.server.peer_addr());
    let plain = |address: io::Result<SocketAddr>| {
        let address = address.expect("an address");
        SocketAddr::new(address.ip().to_canonical(), address.port())
    };
    (plain(ends.0), plain(ends.1))
}

#[tokio::test]
async fn unread_at_close() {
    let mapped = {
        let socket = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
        socket.set_only_v6(false).unwrap();
        socket
            .bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)).into())
            .unwrap();
        socket.listen(8).unwrap();
        Pair::accepted(socket.into(), V4)
    };
    for pair in [Pair::new(V4), Pair::new(V6), mapped] {
        let witness = Witness::start();
        let mut pair = pair.unwrap();
        let ends = ends(&pair);
        pair.unread_byte().unwrap();
        drop(pair.server);
        let word = (Reason::AbortOnClose, State::Close);
        witness.sees(ends, word, Cause::UnreadAtClose, true).await;
    }
}

#[tokio::test]
async fn data_after_close() {
    let witness = Witness::start();
    let mut pair = Pair::new(V4).unwrap();
    let ends = ends(&pair);
    // Until nothing more goes: so the FIN stays behind, and the connection is not yet a time-wait.
    pair.server.set_nonblocking(true).unwrap();
    while pair.server.write(&[0; 65536]).is_ok() {}
    drop(pair.server);
    pair.client.write_all(b"x").unwrap();
    let word = (Reason::AbortOnData, State::Close);
    witness.sees(ends, word, Cause::DataAfterClose, false).await;
}

/// An orphan in FIN-WAIT-2 is made a time-wait by a timer, at once or later: until then it is data after close.
#[tokio::test]
async fn late_data() {
    let witness = Witness::start();
    let mut pair = Pair::new(V4).unwrap();
    let ends = ends(&pair);
    let port = format!(":{:04X} ", ends.0.port());
    drop(pair.server);
    let is_time_wait = || {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let peer = format!(":{:04X} ", ends.1.port());
        // A time-wait has no owner and no inode; an orphan in FIN-WAIT-2 is told with the same state (05).
        table.lines().any(|line| {
            line.contains(&port)
                && line.contains(&peer)
                && line.contains(" 05 ")
                && line.contains(" 03:")
        })
    };
    while !is_time_wait() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    pair.client.write_all(b"x").unwrap();
    let word = (Reason::TimewaitSocket, State::TimeWait);
    witness.sees(ends, word, Cause::LateData, false).await;
}

#[tokio::test]
async fn linger_zero() {
    let witness = Witness::start();
    let pair = Pair::new(V4).unwrap();
    let ends = ends(&pair);
    SockRef::from(&pair.server)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(pair.server);
    let word = (Reason::TcpState, State::Close);
    witness.sees(ends, word, Cause::LingerZero, true).await;
}

#[tokio::test]
async fn never_accepted() {
    let witness = Witness::start();
    let listener = TcpListener::bind(V4).unwrap();
    let server = listener.local_addr().unwrap();
    let client = TcpStream::connect(server).unwrap();
    drop(listener);
    let ends = (server, client.local_addr().unwrap());
    let word = (Reason::TcpState, State::Close);
    witness.sees(ends, word, Cause::LingerZero, true).await;
}

#[tokio::test]
async fn refused() {
    for address in [V4, V6] {
        let witness = Witness::start();
        let server = TcpListener::bind(address).unwrap().local_addr().unwrap();
        let client = Socket::new(Domain::for_address(server), Type::STREAM, None).unwrap();
        client.bind(&address.into()).unwrap();
        let error = client.connect(&server.into()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        let client = client.local_addr().unwrap().as_socket().unwrap();
        let word = (Reason::NoSocket, State::NoSocket);
        witness
            .sees((server, client), word, Cause::Refused, false)
            .await;
    }
}

/// A segment of a connection that is gone, as a late one on the way would be: the listener answers with a RST, and
/// without a listener the kernel does.
#[tokio::test]
async fn echoes_follow_the_first() {
    let mut witness = Witness::start();
    let mut pair = Pair::new(V4).unwrap();
    let (server, client) = ends(&pair);
    pair.unread_byte().unwrap();
    let mut resets = Vec::new();
    drop(pair.server);
    resets.extend(witness.resets(server, client, 1).await);
    late_segment((server, client)).unwrap();
    resets.extend(witness.resets(server, client, 1).await);
    drop(pair.listener);
    late_segment((server, client)).unwrap();
    resets.extend(witness.resets(server, client, 1).await);
    let told: Vec<_> = resets
        .into_iter()
        .map(|it| (it.place, it.event.reason, it.event.state))
        .collect();
    let word = |place, reason, state| (place, Some(reason), Some(state));
    let expected = [
        word(Place::First, Reason::AbortOnClose, State::Close),
        word(Place::Echo, Reason::Flags, State::Listen),
        word(Place::Echo, Reason::NoSocket, State::NoSocket),
    ];
    assert_eq!(told, expected);
}

/// Sends a byte of data from `client` to `server`, by hand.
fn late_segment((server, client): (SocketAddr, SocketAddr)) -> io::Result<()> {
    let mut segment = Vec::new();
    segment.extend(client.port().to_be_bytes());
    segment.extend(server.port().to_be_bytes());
    // Sequence and acknowledgment numbers, header length, PSH and ACK, window, checksum, urgent pointer, a byte.
    segment.extend([
        0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x18, 1, 0, 0, 0, 0, 0, b'x', 0,
    ]);
    let pseudo_header = [127, 0, 0, 1, 127, 0, 0, 1, 0, 6, 0, 21];
    let words = pseudo_header.chunks(2).chain(segment.chunks(2));
    let sum: u32 = words
        .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]))
        .sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::TCP))?;
    socket.send_to(
        &segment[..21],
        &SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into(),
    )?;
    Ok(())
}

#[tokio::test]
async fn the_instance_goes_with_its_owner_and_in_a_panic() {
    let witness = Witness::start();
    let path = witness.kernel.instance().to_owned();
    assert!(path.exists());
    drop(witness);
    assert!(!path.exists());
    let (tell, told) = std::sync::mpsc::channel();
    let panicked = tokio::spawn(async move {
        let witness = Witness::start();
        tell.send(witness.kernel.instance().to_owned()).unwrap();
        assert!(
            !witness.kernel.instance().exists(),
            "this panic is part of the test"
        );
    });
    assert!(panicked.await.unwrap_err().is_panic());
    assert!(!told.recv().unwrap().exists());
}

#[tokio::test]
async fn what_a_killed_run_left_is_removed() {
    let instances = Witness::start()
        .kernel
        .instance()
        .parent()
        .unwrap()
        .to_owned();
    // No process has a number so high (`PID_MAX_LIMIT`). Nor is one started here: it would for a moment hold the
    // sockets of the tests beside this one, and the last to close sends the RST.
    let namespace = std::fs::metadata("/proc/self/ns/pid").unwrap().ino();
    let [stale, of_a_container] =
        [namespace, 1].map(|namespace| instances.join(format!("rstlab-4194305-10-{namespace}-0")));
    std::fs::create_dir(&stale).unwrap();
    std::fs::create_dir(&of_a_container).unwrap();
    drop(Witness::start());
    let left = [&stale, &of_a_container].map(|path| path.exists());
    std::fs::remove_dir(&of_a_container).unwrap();
    assert_eq!(left, [false, true]);
}

/// Whoever removes what seems stale cannot remove one that is in use.
#[tokio::test]
async fn an_instance_in_use_cannot_be_removed() {
    let witness = Witness::start();
    let error = std::fs::remove_dir(witness.kernel.instance()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
}

#[tokio::test]
async fn lost_events_are_told() {
    let mut kernel = Witness::start().kernel;
    let page = std::fs::write(kernel.instance().join("buffer_size_kb"), "4");
    page.expect("a buffer of a page can be had");
    let listener = TcpListener::bind(V4).unwrap();
    let server = listener.local_addr().unwrap();
    for _ in 0..1000 {
        let _client = TcpStream::connect(server).unwrap();
        let (server, _) = listener.accept().unwrap();
        SockRef::from(&server)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    }
    let mut lines = Vec::new();
    kernel.read(&mut lines).await.expect("the pipe can be read");
    kernel.finish(&mut lines).expect("the pipe can be read");
    let (mut told, mut lost) = (0, 0);
    for line in lines {
        match line.expect("a sound line") {
            Line::Reset(event) => told += u64::from(event.source == server),
            Line::Lost { events, .. } => lost += events.expect("a count"),
            Line::Kill(_) => {}
            other => panic!("{other:?}"),
        }
    }
    // Others on this machine may have lost some too.
    assert!(
        told > 0 && lost > 0 && told + lost >= 1000,
        "{told} told, {lost} lost"
    );
}
