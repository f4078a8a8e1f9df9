//! The kernel's trace of resets, made with real sockets: first ones and echoes, lost events, and the trace instance.
//! Each kind of reset is in `packets.rs`, beside its packets. Needs root and a mounted tracefs:
//! `cargo test -p rstlab-witness --features kernel`.

#![cfg(feature = "kernel")]

use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use rstlab_witness::{
    Cause, KernelTrace, Known, Place, Reason, Scope, State, TraceEvent, TracedReset, Verdict,
};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// Longest wait for a reset that must come.
const PATIENCE: Duration = Duration::from_secs(10);

const LOOPBACK: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

/// The kernel's trace, of which the RSTs of one connection are looked at.
struct Witness {
    trace: KernelTrace,
}

impl Witness {
    fn start() -> Self {
        let trace =
            KernelTrace::open(Scope::Resets(&[])).expect("these tests need root and tracefs");
        assert!(trace.format().tells_closes_apart(), "Linux 6.12 or newer");
        Self { trace }
    }

    /// The next `count` RSTs that `server` sends to `client`, or to nobody that the kernel names.
    async fn resets(
        &mut self,
        server: SocketAddr,
        client: SocketAddr,
        count: usize,
    ) -> Vec<TracedReset> {
        let mut found = Vec::new();
        let wait = async {
            let mut events = Vec::new();
            while found.len() < count {
                self.trace
                    .next(&mut events)
                    .await
                    .expect("the pipe can be read");
                for event in events.drain(..) {
                    let TraceEvent::Reset(reset) = event else {
                        panic!("{event:?}");
                    };
                    let is_to_client = reset.event.destination.is_none_or(|to| to == client);
                    if reset.event.source == server && is_to_client {
                        found.push(reset);
                    }
                }
            }
        };
        if tokio::time::timeout(PATIENCE, wait).await.is_err() {
            panic!("{count} RSTs from {server} to {client}; seen: {found:?}");
        }
        found
    }
}

#[tokio::test]
async fn a_connection_that_was_never_accepted_is_reset_by_the_close_of_its_listener() {
    let mut witness = Witness::start();
    let listener = TcpListener::bind(LOOPBACK).unwrap();
    let server = listener.local_addr().unwrap();
    let client = TcpStream::connect(server).unwrap().local_addr().unwrap();
    drop(listener);
    let resets = witness.resets(server, client, 1).await;
    let TracedReset { event, place, .. } = &resets[0];
    assert_eq!(*place, Place::First, "{event:?}");
    assert_eq!(
        (event.reason.as_ref(), event.state.as_ref()),
        (Some(&Reason::TcpState), Some(&State::Close))
    );
    let verdict = Verdict::of(&resets[0].evidence(), server);
    let expected = (Cause::LingerZero, Known::Proved);
    assert_eq!((verdict.cause, verdict.known), expected);
    let sender = event.sender().map(|process| process.pid);
    assert_eq!(sender, Some(std::process::id()), "{event:?}");
}

/// A segment of a connection that is gone, as a late one on the way would be: the listener answers with a RST, and
/// without a listener the kernel does.
#[tokio::test]
async fn echoes_follow_the_first_reset() {
    let mut witness = Witness::start();
    let listener = TcpListener::bind(LOOPBACK).unwrap();
    let server = listener.local_addr().unwrap();
    let mut connected = TcpStream::connect(server).unwrap();
    let (accepted, client) = listener.accept().unwrap();
    connected.write_all(b"x").unwrap();
    accepted.peek(&mut [0]).unwrap();
    let mut resets = Vec::new();
    drop(accepted);
    resets.extend(witness.resets(server, client, 1).await);
    late_segment((server, client)).unwrap();
    resets.extend(witness.resets(server, client, 1).await);
    drop(listener);
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
async fn an_instance_is_removed_with_its_owner_and_in_a_panic() {
    let witness = Witness::start();
    let path = witness.trace.instance().to_owned();
    assert!(path.exists());
    drop(witness);
    assert!(!path.exists());
    let (tell, told) = std::sync::mpsc::channel();
    let panicked = tokio::spawn(async move {
        let witness = Witness::start();
        tell.send(witness.trace.instance().to_owned()).unwrap();
        assert!(
            !witness.trace.instance().exists(),
            "this panic is part of the test"
        );
    });
    assert!(panicked.await.unwrap_err().is_panic());
    assert!(!told.recv().unwrap().exists());
}

#[tokio::test]
async fn an_instance_that_a_killed_run_left_is_removed() {
    let witness = Witness::start();
    let instances = witness.trace.instance().parent().unwrap();
    // No process has a number so high (`PID_MAX_LIMIT`). No process is started here to be killed, because it would hold
    // the sockets of the other tests for a moment, and the last holder to close sends the RST.
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
    let error = std::fs::remove_dir(witness.trace.instance()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
}

#[tokio::test]
async fn lost_events_are_told() {
    let mut trace = Witness::start().trace;
    let page = std::fs::write(trace.instance().join("buffer_size_kb"), "4");
    page.expect("a buffer of a page can be had");
    let listener = TcpListener::bind(LOOPBACK).unwrap();
    let server = listener.local_addr().unwrap();
    for _ in 0..1000 {
        let _client = TcpStream::connect(server).unwrap();
        let (server, _) = listener.accept().unwrap();
        SockRef::from(&server)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    }
    let mut events = Vec::new();
    let next = tokio::time::timeout(PATIENCE, trace.next(&mut events)).await;
    next.expect("events come").expect("the pipe can be read");
    trace.finish(&mut events).expect("the pipe can be read");
    let (mut told, mut lost) = (0, 0);
    for event in events {
        match event {
            TraceEvent::Reset(reset) => told += u64::from(reset.event.source == server),
            TraceEvent::Lost { events, .. } => lost += events.expect("a count"),
            other => panic!("{other:?}"),
        }
    }
    // Others on this machine may have lost some too.
    assert!(
        told > 0 && lost > 0 && told + lost >= 1000,
        "{told} told, {lost} lost"
    );
}
