//! `rstlab watch` beside real sockets. Needs root, a mounted tracefs, tcpdump and unshare:
//! `cargo test -p rstlab-lab --features kernel --test watch_kernel`.

use std::collections::HashMap;
use std::fs::Permissions;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use socket2::{Domain, SockRef, Socket, Type};

/// Longest wait for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

const PROGRAM: &str = env!("CARGO_BIN_EXE_rstlab");

/// A program that runs beside the test, and is killed with it.
struct Beside {
    child: Child,
    errors: BufReader<ChildStderr>,
}

impl Beside {
    /// Starts it and waits until it says `ready` on standard error.
    fn start(command: &mut Command, ready: &str) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let errors = BufReader::new(child.stderr.take().expect("a pipe"));
        let mut beside = Self { child, errors };
        let mut said = String::new();
        while beside.errors.read_line(&mut said).expect("text") > 0 {
            if said.contains(ready) {
                return beside;
            }
        }
        panic!("{command:?} did not start: {said}");
    }

    fn watch(args: &[&str]) -> Self {
        let mut command = Command::new(PROGRAM);
        command.arg("watch").args(args).stdout(Stdio::piped());
        Self::start(&mut command, "watching")
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("it runs");
    }

    /// Waits for its end; its status and the rest of its standard error.
    fn end(&mut self) -> (ExitStatus, String) {
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                break status;
            }
            assert!(begun.elapsed() < PATIENCE, "it does not end");
            thread::sleep(Duration::from_millis(5));
        };
        let mut rest = String::new();
        self.errors.read_to_string(&mut rest).expect("text");
        (status, rest)
    }

    /// Its trace instance.
    fn instance(&self) -> String {
        format!("/sys/kernel/tracing/instances/rstlab-{}-0", self.child.id())
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        // An error says that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}

fn connection(listener: &TcpListener) -> (TcpStream, TcpStream) {
    let client = TcpStream::connect(listener.local_addr().expect("an address")).expect("connects");
    (listener.accept().expect("accepts").0, client)
}

/// Closes with a byte unread.
fn reset(listener: &TcpListener) -> TcpStream {
    let (server, mut client) = connection(listener);
    client.write_all(b"x").expect("sends");
    server.peek(&mut [0]).expect("arrives");
    client
}

fn keys(value: &Value) -> Vec<&str> {
    let object = value.as_object().expect("an object");
    object.keys().map(String::as_str).collect()
}

fn required(schema: &Value) -> Vec<&str> {
    let list = schema["required"].as_array().expect("a list");
    let mut names: Vec<&str> = list.iter().filter_map(Value::as_str).collect();
    names.sort_unstable();
    names
}

#[test]
fn says_who_and_why_as_the_schema_says() {
    let (listener, address) = listener();
    let port = address.port().to_string();
    let mut watch = Beside::watch(&["--json", "--port", &port, "--count", "2"]);
    let first = reset(&listener);
    let (mut server, mut second) = connection(&listener);
    // Until nothing more goes: so the FIN stays behind, and the connection is not yet a time-wait.
    server.set_nonblocking(true).expect("sets");
    while server.write(&[0; 65536]).is_ok() {}
    drop(server);
    second.write_all(b"x").expect("sends");
    let mut out = String::new();
    let stdout = watch.child.stdout.as_mut().expect("a pipe");
    stdout.read_to_string(&mut out).expect("text");
    let (status, summary) = watch.end();
    assert!(status.success(), "{status} {summary}");
    assert!(
        summary.contains("resets: 2, echoes: 0, lost events: 0, unreadable lines: 0"),
        "{summary}"
    );

    let schema: Value = serde_json::from_str(include_str!("../schema/watch.json")).expect("JSON");
    let causes = schema["properties"]["cause"]["enum"]
        .as_array()
        .expect("a list");
    for cause in rstlab_witness::Cause::ALL {
        assert!(
            causes.contains(&cause.as_str().into()),
            "{cause} is in the schema"
        );
    }
    let records: Vec<Value> = out
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    for record in &records {
        assert_eq!(keys(record), required(&schema));
    }
    let [closed, late] = records.as_slice() else {
        panic!("{out}");
    };
    let us = std::process::id();
    assert_eq!(closed["cause"], "unread-at-close");
    assert_eq!(closed["reason"], "TCP_ABORT_ON_CLOSE");
    assert_eq!(closed["from"], address.to_string());
    assert_eq!(
        closed["to"],
        first.local_addr().expect("an address").to_string()
    );
    assert_eq!(
        (&closed["sender"]["pid"], &closed["owner"]),
        (&us.into(), &Value::Null)
    );
    assert_eq!(
        keys(&closed["sender"]),
        required(&schema["properties"]["sender"])
    );
    assert_eq!(late["cause"], "data-after-close");
    assert_eq!(
        late["to"],
        second.local_addr().expect("an address").to_string()
    );
    assert_eq!(
        (&late["owner"]["pid"], &late["sender"]),
        (&us.into(), &Value::Null)
    );
    assert_eq!(
        keys(&late["owner"]),
        required(&schema["properties"]["owner"])
    );
}

#[test]
fn text_fits_a_terminal() {
    let (listener, address) = listener();
    let mut watch = Beside::watch(&["--port", &address.port().to_string(), "--count", "1"]);
    reset(&listener);
    let mut out = String::new();
    let stdout = watch.child.stdout.as_mut().expect("a pipe");
    stdout.read_to_string(&mut out).expect("text");
    assert!(out.contains("= unread-at-close\n"), "{out}");
    assert!(
        out.contains(&format!(", pid {}. It closed", std::process::id())),
        "{out}"
    );
    assert!(out.lines().all(|line| line.len() <= 100), "{out}");
}

#[test]
fn a_refused_connect_is_told_although_nothing_comes_after_it() {
    let (listener, address) = listener();
    drop(listener);
    let port = address.port().to_string();
    let mut watch = Beside::watch(&["--json", "--port", &port, "--count", "1"]);
    TcpStream::connect(address).expect_err("nobody listens");
    let (status, summary) = watch.end();
    assert!(
        status.success() && summary.contains("resets: 1,"),
        "{summary}"
    );
    let mut out = String::new();
    let stdout = watch.child.stdout.as_mut().expect("a pipe");
    stdout.read_to_string(&mut out).expect("text");
    let record: Value = serde_json::from_str(&out).expect("JSON");
    let told = [&record["cause"], &record["reason"], &record["state"]];
    assert_eq!(told, ["refused", "NO_SOCKET", "UNKNOWN"]);
    assert_eq!([&record["sender"], &record["owner"]], [&Value::Null; 2]);
}

#[test]
fn a_signal_ends_it_well_and_removes_the_instance() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let mut watch = Beside::watch(&["--port", "1"]);
        let instance = watch.instance();
        assert!(Path::new(&instance).exists(), "{instance}");
        watch.signal(signal);
        let (status, summary) = watch.end();
        assert!(status.success(), "{signal:?}: {status}");
        assert!(summary.contains("resets: 0, echoes: 0"), "{summary}");
        assert!(!Path::new(&instance).exists(), "{signal:?}");
    }
}

#[test]
fn the_next_start_removes_what_a_killed_run_left() {
    let mut watch = Beside::watch(&["--port", "1"]);
    let instance = watch.instance();
    watch.signal(Signal::KILL);
    watch.end();
    // Another test may have started one meanwhile: it is gone already then.
    let (status, _) = Beside::watch(&["--port", "1", "--duration", "10ms"]).end();
    assert!(status.success());
    assert!(!Path::new(&instance).exists());
}

#[test]
fn it_ends_when_nobody_reads_and_when_nobody_takes_what_it_writes() {
    let (listener, address) = listener();
    let port = address.port().to_string();
    let mut watch = Beside::watch(&["--port", &port]);
    drop(watch.child.stdout.take());
    reset(&listener);
    assert!(watch.end().0.success());

    // More than a pipe holds, and nobody takes it.
    let mut watch = Beside::watch(&["--port", &port]);
    for _ in 0..1000 {
        reset(&listener);
    }
    watch.signal(Signal::TERM);
    assert!(watch.end().0.success());
    assert!(!Path::new(&watch.instance()).exists());
}

#[test]
fn says_what_is_missing() {
    let error = |command: &mut Command| {
        let output = command.output().expect("it runs");
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).expect("text")
    };
    // The directory of the build may be closed to others: the program is opened before root is given up.
    let program = std::fs::read(PROGRAM).expect("the program");
    let directory = tempfile::tempdir().expect("a directory");
    let copy = directory.path().join("rstlab");
    std::fs::write(&copy, program).expect("writes");
    for path in [copy.as_path(), directory.path()] {
        std::fs::set_permissions(path, Permissions::from_mode(0o755)).expect("sets");
    }
    let nobody = error(Command::new(&copy).arg("watch").uid(65534).gid(65534));
    assert!(
        nobody.contains("is for root only: run this as root"),
        "{nobody}"
    );

    let script = "umount -a -t tracefs; umount -a -t debugfs; exec \"$0\" watch";
    let mut unmounted = Command::new("unshare");
    let unmounted = error(unmounted.args(["--mount", "sh", "-c", script, PROGRAM]));
    assert!(
        unmounted.contains("mount -t tracefs tracefs /sys/kernel/tracing"),
        "{unmounted}"
    );
}

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
