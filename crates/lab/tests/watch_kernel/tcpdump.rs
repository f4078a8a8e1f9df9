use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use socket2::{Domain, SockRef, Socket, Type};

use crate::beside::{Beside, PATIENCE, connection, listener, reset};

type Pair = (SocketAddr, SocketAddr);

/// Resets of several kinds from a listener, at `rate` a second: the number made.
fn load(listener: &TcpListener, rate: u32, seconds: u32) -> u32 {
    let (to_writer, streams) = mpsc::channel::<TcpStream>();
    let writer = thread::spawn(move || {
        for mut stream in streams {
            while stream.write_all(&[0; 1000]).is_ok() {}
        }
    });
    let begun = Instant::now();
    for n in 0..rate * seconds {
        let due = begun + Duration::from_secs(1) * n / rate;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        match n % 4 {
            0 => {
                reset(listener);
            }
            1 => {
                let (server, mut client) = connection(listener);
                drop(server);
                client.write_all(b"x").expect("sends");
                let _ = client.write_all(b"y");
            }
            2 => {
                let (server, _client) = connection(listener);
                let socket = SockRef::from(&server);
                socket.set_linger(Some(Duration::ZERO)).expect("sets");
                drop(server);
            }
            // Closed while the client writes on another processor: segments are on the way.
            _ => {
                let (server, client) = connection(listener);
                to_writer.send(client).expect("it runs");
                server.peek(&mut [0]).expect("arrives");
                drop(server);
            }
        }
    }
    let took = begun.elapsed();
    drop(to_writer);
    writer.join().expect("ends");
    eprintln!("{} connections reset in {took:?}", rate * seconds);
    rate * seconds
}

#[test]
fn names_every_rst_that_tcpdump_sees_at_2000_a_second() {
    let (listener, address) = listener();
    let port = address.port().to_string();
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("rst.pcap");
    let filter = format!("tcp port {port} and tcp[tcpflags] & tcp-rst != 0");
    let mut tcpdump = Command::new("tcpdump");
    tcpdump.args([
        "-i", "lo", "-n", "-U", "-B", "65536", "-s", "96", "-Z", "root", "-w",
    ]);
    let mut tcpdump = Beside::start(tcpdump.arg(&file).arg(filter), "listening on");
    let mut watch = Beside::watch(&["--json", "--port", &port]);
    let out = watch.child.stdout.take().expect("a pipe");
    let reader = thread::spawn(move || {
        let lines = BufReader::new(out).lines();
        lines.collect::<Result<Vec<_>, _>>().expect("text")
    });

    let made = load(&listener, 2000, 3);
    let last = marker(&listener);
    let begun = Instant::now();
    let packets = loop {
        let packets = captured(&file);
        if packets.contains_key(&(address, last)) {
            break packets;
        }
        assert!(
            begun.elapsed() < PATIENCE,
            "tcpdump does not see the last one"
        );
        thread::sleep(Duration::from_millis(50));
    };
    tcpdump.signal(Signal::INT);
    let (_, said) = tcpdump.end();
    assert!(said.contains("\n0 packets dropped by kernel"), "{said}");
    watch.signal(Signal::TERM);
    let (status, summary) = watch.end();
    assert!(status.success());
    assert!(
        summary.contains("lost events: 0, unreadable lines: 0"),
        "{summary}"
    );

    let lines = reader.join().expect("ends");
    let server = address;
    let (mut named, mut unnamed, mut firsts) = (HashMap::<Pair, u32>::new(), 0, HashMap::new());
    for line in &lines {
        let record: Value = serde_json::from_str(line).expect("JSON");
        let address = |key: &str| -> Option<SocketAddr> { record[key].as_str()?.parse().ok() };
        let from = address("from").expect("an address");
        let Some(to) = address("to") else {
            assert_eq!((from, &record["place"]), (server, &"echo".into()));
            unnamed += 1;
            continue;
        };
        *named.entry((from, to)).or_default() += 1;
        if record["place"] == "first" {
            *firsts.entry((from, to)).or_default() += 1;
            let cause = record["cause"].as_str().expect("a cause");
            let known = [
                "unread-at-close",
                "data-after-close",
                "late-data",
                "linger-zero",
            ];
            assert!(known.contains(&cause), "{line}");
        }
    }
    eprintln!(
        "{} RSTs, {unnamed} of them a listener's; {summary}",
        lines.len()
    );
    let in_all: u32 = packets.values().sum();
    assert_eq!(lines.len(), in_all as usize, "none missing, none invented");
    for (pair, count) in &named {
        let sent = packets.get(pair).copied().unwrap_or(0);
        assert!(sent >= *count, "{pair:?}: {count} told, {sent} sent");
    }
    // What the kernel does not name went from the listener to one of the connections.
    let rest = packets
        .iter()
        .map(|(pair, sent)| (pair, sent - named.get(pair).unwrap_or(&0)));
    let rest: Vec<_> = rest.filter(|(_, missing)| *missing > 0).collect();
    assert!(
        rest.iter().all(|((from, _), _)| *from == address),
        "{rest:?}"
    );
    assert_eq!(
        rest.iter().map(|(_, missing)| missing).sum::<u32>(),
        unnamed
    );
    assert_eq!(
        firsts.values().sum::<u32>(),
        made + 1,
        "one for each connection"
    );
}

/// One more reset, of a client with an address of its own: ports are used again, the capture is known to be whole by
/// this one.
fn marker(listener: &TcpListener) -> SocketAddr {
    let client = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let elsewhere = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), 0));
    client.bind(&elsewhere.into()).expect("binds");
    let server = listener.local_addr().expect("an address");
    client.connect(&server.into()).expect("connects");
    let (server, client) = listener.accept().expect("accepts");
    let socket = SockRef::from(&server);
    socket.set_linger(Some(Duration::ZERO)).expect("sets");
    client
}

/// The RSTs of a capture, by source and destination.
fn captured(file: &Path) -> HashMap<Pair, u32> {
    let output = Command::new("tcpdump")
        .args(["-nn", "-r"])
        .arg(file)
        .output()
        .expect("tcpdump runs");
    let mut packets = HashMap::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let pair = words
            .get(2)
            .zip(words.get(4))
            .map(|(from, to)| (from, to.trim_end_matches(':')));
        let pair = pair.and_then(|(from, to)| Some((dotted(from)?, dotted(to)?)));
        *packets
            .entry(pair.unwrap_or_else(|| panic!("{line}")))
            .or_default() += 1;
    }
    packets
}

/// `127.0.0.1.8000`
fn dotted(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.rsplit_once('.')?;
    Some(SocketAddr::new(ip.parse().ok()?, port.parse().ok()?))
}
