//! The JSON and the text that `rstlab watch` prints for each reset.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::Duration;

use rstlab_tests::{LIMIT, assert_contains, check_schema, json_lines, schema};
use rstlab_witness::{Cause, Evidence, KernelWitness, Subject, Verdict};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::beside::{Beside, PROGRAM, alone, connection, listener, reset};

/// Makes two resets: with unread bytes, and by data after the close. Returns their records, checked against the schema,
/// and the addresses of the clients.
fn two_resets(witness: &str, listener: &TcpListener) -> ([Value; 2], [SocketAddr; 2]) {
    let port = listener
        .local_addr()
        .expect("an address")
        .port()
        .to_string();
    let mut watch = Beside::watch(&format!(
        "--witness {witness} --json --port {port} --count 2"
    ));
    let first = reset(listener);
    let (mut server, mut second) = connection(listener);
    // With a full send queue the FIN is not sent, so the connection is not yet in TIME_WAIT.
    server.set_nonblocking(true).expect("sets");
    while server.write(&[0; 65536]).is_ok() {}
    drop(server);
    second.write_all(b"x").expect("sends");
    let out = watch.output();
    let (status, summary) = watch.end();
    assert!(status.success(), "{status} {summary}");
    assert!(summary.contains("resets: 2, echoes: 0, lost "), "{summary}");
    assert!(!summary.contains("missing"), "{summary}");

    let records = json_lines(&out);
    for record in &records {
        check_schema("watch", record).expect("as the schema says");
        assert_eq!(record["witness"], witness);
        assert_eq!(
            record["from"],
            listener.local_addr().expect("an address").to_string()
        );
    }
    let clients = [&first, &second].map(|it| it.local_addr().expect("an address"));
    let Ok(records) = <[Value; 2]>::try_from(records) else {
        panic!("{out}");
    };
    assert_eq!(
        records.each_ref().map(|it| it["to"].clone()),
        clients.map(|it| Value::from(it.to_string()))
    );
    (records, clients)
}

#[test]
fn watch_tells_the_sender_and_the_reason_from_the_kernel() {
    let _alone = alone();
    let (listener, _) = listener();
    let ([closed, late], _) = two_resets("kernel", &listener);
    let us = std::process::id();
    assert_eq!(
        [&closed["cause"], &closed["known"], &closed["reason"]],
        ["unread-at-close", "proved", "TCP_ABORT_ON_CLOSE"]
    );
    assert_eq!(
        (&closed["sender"]["pid"], &closed["owner"]),
        (&us.into(), &Value::Null)
    );
    assert_eq!(
        [&late["cause"], &late["known"]],
        ["data-after-close", "proved"]
    );
    assert_eq!(
        (&late["owner"]["pid"], &late["sender"]),
        (&us.into(), &Value::Null)
    );
    assert!(closed["sender"].is_object() && late["owner"].is_object());
}

#[test]
fn watch_tells_what_the_packets_show() {
    let _alone = alone();
    let (listener, _) = listener();
    let ([closed, late], _) = two_resets("packets", &listener);
    assert_eq!(
        [&closed["cause"], &closed["known"], &closed["flags"]],
        ["unread-at-close", "inferred", "[R.]"]
    );
    assert_eq!(
        [&late["cause"], &late["known"], &late["flags"]],
        ["data-after-close", "proved", "[R]"]
    );
    for record in [closed, late] {
        assert_eq!(record["owner"]["pid"], std::process::id());
        for key in ["sender", "reason", "state", "cpu"] {
            assert_eq!(record[key], Value::Null);
        }
    }
}

#[test]
fn the_schema_has_every_cause_that_one_rst_can_have() {
    let schema = schema("watch");
    let causes = schema["properties"]["cause"]["enum"]
        .as_array()
        .expect("a list");
    for cause in Cause::ALL {
        let without_rst = [Cause::ClosedWithoutAnswer, Cause::NoReset].contains(&cause);
        assert_eq!(
            causes.contains(&cause.as_str().into()),
            !without_rst,
            "{cause}"
        );
    }
}

#[test]
fn watch_names_the_kill_of_a_process_as_the_cause() {
    let _alone = alone();
    let (listener, address) = listener();
    let port = address.port().to_string();
    let (mut pids, mut records) = (Vec::new(), Vec::new());
    for signal in [Some(Signal::KILL), Some(Signal::TERM), None] {
        // One watch for each: what watch looks up in /proc after a reset may hold the socket of a process that ends at
        // that moment (`proc_fd_link`), and then close it last.
        let mut watch = Beside::watch(&format!("--json --port {port} --count 1"));
        let (server, mut client) = connection(&listener);
        client.write_all(b"x").expect("sends");
        server.peek(&mut [0]).expect("arrives");
        // The connection is the standard error of cat, which alone holds it once it is started. cat ends with its
        // standard input, which the wait closes.
        let mut holder = Command::new("cat")
            .stdin(Stdio::piped())
            .stderr(OwnedFd::from(server))
            .spawn()
            .expect("it starts");
        if let Some(signal) = signal {
            kill_process(Pid::from_child(&holder), signal).expect("it runs");
        }
        pids.push(holder.id());
        holder.wait().expect("it ends");
        records.extend(watch.records());
    }
    let told = |key: &str| records.iter().map(|it| it[key].clone()).collect::<Vec<_>>();
    assert_eq!(told("cause"), ["killed", "killed", "unread-at-close"]);
    assert_eq!(told("known"), ["proved"; 3]);
    assert_eq!(told("reason"), ["TCP_ABORT_ON_CLOSE"; 3]);
    let senders: Vec<_> = records
        .iter()
        .map(|it| it["sender"]["pid"].clone())
        .collect();
    assert_eq!(senders, pids, "{records:?}");
}

/// The verdict on a connection by the kernel's evidence alone, judged as the proxy judges.
fn proxy_verdict(witness: &KernelWitness, ends: [SocketAddr; 2], runtime: &Runtime) -> Verdict {
    let [server, client] = ends;
    let subject = Subject {
        server,
        client,
        since: Duration::ZERO,
    };
    let story = runtime.block_on(witness.story(subject, LIMIT));
    let evidence = Evidence {
        kernel: Some(story.word),
        ..Evidence::default()
    };
    Verdict::of(&evidence, server)
}

/// The kernel closes the socket of a killed process with a FIN; bytes that come then reset the connection.
#[test]
fn watch_and_proxy_both_call_a_reset_after_the_end_of_a_killed_process_killed() {
    let _alone = alone();
    let (listener, address) = listener();
    let port = address.port().to_string();
    let runtime = Runtime::new().expect("a runtime");
    let witness = runtime.block_on(async { KernelWitness::open(address.port()) });
    let witness = witness.expect("root, and tracefs");
    let mut watch = Beside::watch(&format!("--json --port {port} --count 2"));
    let mut expected = Vec::new();
    for (signal, cause) in [(Some(Signal::KILL), "killed"), (None, "data-after-close")] {
        let (server, mut client) = connection(&listener);
        server.set_nonblocking(true).expect("sets");
        // With a full send queue the FIN is not sent, so the connection is not yet in TIME_WAIT.
        while (&server).write(&[0; 65536]).is_ok() {}
        let mut holder = Command::new("cat")
            .stdin(Stdio::piped())
            .stderr(OwnedFd::from(server))
            .spawn()
            .expect("it starts");
        if let Some(signal) = signal {
            kill_process(Pid::from_child(&holder), signal).expect("it runs");
        }
        holder.wait().expect("it ends");
        client.write_all(b"x").expect("sends");
        let ends = [address, client.local_addr().expect("an address")];
        let verdict = proxy_verdict(&witness, ends, &runtime);
        let word = [verdict.cause.as_str(), verdict.known.as_str()];
        let reason = verdict.reason.map(|reason| reason.to_string());
        assert_eq!(word, [cause, "proved"]);
        assert_eq!(reason.as_deref(), Some("TCP_ABORT_ON_DATA"));
        expected.push([cause, "proved", "TCP_ABORT_ON_DATA"].map(Value::from));
    }
    runtime.block_on(witness.close());
    let records = watch.records();
    let told = records
        .iter()
        .map(|it| ["cause", "known", "reason"].map(|key| it[key].clone()));
    assert_eq!(told.collect::<Vec<_>>(), expected, "{records:?}");
}

/// What watch tells of a kept connection that is closed while its second request lies unread.
fn keep_alive_race(args: &str) -> Value {
    let (listener, address) = listener();
    let port = address.port().to_string();
    let mut watch = Beside::watch(&format!("{args} --json --port {port} --count 1"));
    let (mut server, mut client) = connection(&listener);
    let request = |path: &str| format!("GET {path}?secret HTTP/1.1\r\nHost: x\r\n\r\n");
    let [first, second] = ["/first", "/second"].map(request);
    let answer = b"HTTP/1.1 204 No Content\r\n\r\n";
    client.write_all(first.as_bytes()).expect("sends");
    server
        .read_exact(&mut vec![0; first.len()])
        .expect("arrives");
    server.write_all(answer).expect("sends");
    client
        .read_exact(&mut vec![0; answer.len()])
        .expect("arrives");
    client.write_all(second.as_bytes()).expect("sends");
    server.peek(&mut [0]).expect("arrives");
    drop(server);
    let [told] = <[Value; 1]>::try_from(watch.records()).expect("one record");
    check_schema("watch", &told).expect("as the schema says");
    told
}

/// The kernel's trace has no requests: without captured packets the same RST is one of a close with unread bytes.
#[test]
fn the_packets_tell_a_keep_alive_race_and_its_request_beside_the_kernel_too() {
    let _alone = alone();
    let race = "keep-alive-race";
    for (args, cause, known, request) in [
        ("--witness packets", race, "inferred", Value::Null),
        (
            "--witness packets --http",
            race,
            "inferred",
            "GET /second".into(),
        ),
        ("--witness kernel", "unread-at-close", "proved", Value::Null),
        (
            "--witness kernel --http",
            race,
            "proved",
            "GET /second".into(),
        ),
    ] {
        let told = keep_alive_race(args);
        assert_eq!([&told["cause"], &told["known"]], [cause, known], "{args}");
        assert_eq!(told["request"], request, "{args}");
    }
}

#[test]
fn watch_says_why_it_cannot_tell_requests() {
    let _alone = alone();
    let mut without = Command::new("setpriv");
    without.args(["--bounding-set=-net_raw", "--inh-caps=-net_raw", PROGRAM]);
    without.args(["watch", "--witness", "kernel", "--http", "--port", "1"]);
    without.args(["--duration", "10ms"]);
    let watch = Beside::start(without.stdout(Stdio::null()), "watching");
    let said = watch.said.split_whitespace().collect::<Vec<_>>().join(" ");
    let parts = ["requests (--http) cannot be told", "CAP_NET_RAW"];
    assert_contains(&said, &parts);
}

#[test]
fn watch_sees_one_of_several_ports_and_of_all_ports() {
    let _alone = alone();
    let listeners: Vec<_> = (0..40).map(|_| listener().0).collect();
    let ports: Vec<_> = listeners
        .iter()
        .map(|it| it.local_addr().expect("an address").port().to_string())
        .collect();
    let [first, second, other] = [&listeners[0], &listeners[1], &listeners[39]];
    for witness in ["kernel", "packets"] {
        // Two ports, more ports than a filter takes, and all ports.
        for (asked, seen) in [(&ports[..2], 3), (&ports[..39], 3), (&[][..], 4)] {
            let asked_for: String = asked.iter().map(|port| format!(" --port {port}")).collect();
            let mut watch = Beside::watch(&format!("--witness {witness} --json{asked_for}"));
            for listener in [first, other, second, first] {
                reset(listener);
            }
            watch.signal(Signal::TERM);
            let out = watch.output();
            let ours = ports
                .iter()
                .map(|port| format!("\"from\":\"127.0.0.1:{port}\""));
            let ours: Vec<_> = ours.collect();
            let told = out
                .lines()
                .filter(|line| ours.iter().any(|it| line.contains(it)));
            assert_eq!(told.count(), seen, "{witness} {asked:?}: {out}");
            assert!(watch.end().0.success());
        }
    }
}

#[test]
fn the_text_of_watch_fits_a_terminal() {
    let _alone = alone();
    let (listener, address) = listener();
    let port = address.port().to_string();
    for (witness, head, body) in [
        (
            "kernel",
            "TCP_ABORT_ON_CLOSE = unread-at-close\n",
            "It closed",
        ),
        ("packets", "[R.] = unread-at-close, inferred\n", "It closed"),
    ] {
        let mut watch = Beside::watch(&format!("--witness {witness} --port {port} --count 1"));
        reset(&listener);
        let out = watch.output();
        let body = format!(", pid {}. {body}", std::process::id());
        assert_contains(&out, &[head, &body]);
        let (_, summary) = watch.end();
        let row = format!("\n     1  unread-at-close  {address}  ");
        assert_contains(&summary, &["\nresets  cause            listener", &row]);
        let lines = out.lines().chain(watch.said.lines()).chain(summary.lines());
        assert!(
            lines.into_iter().all(|line| line.len() <= 100),
            "{out}{}",
            watch.said
        );
    }
}

#[test]
fn a_refused_connect_is_told_although_nothing_comes_after_it() {
    let _alone = alone();
    let (listener, address) = listener();
    drop(listener);
    let port = address.port().to_string();
    for (witness, expected) in [
        ("kernel", ["NO_SOCKET", "UNKNOWN", ""]),
        ("packets", ["", "", "[R.]"]),
    ] {
        let mut watch = Beside::watch(&format!(
            "--witness {witness} --json --port {port} --count 1"
        ));
        TcpStream::connect(address).expect_err("nobody listens");
        let out = watch.output();
        let (status, summary) = watch.end();
        assert!(
            status.success() && summary.contains("resets: 1,"),
            "{summary}"
        );
        let record: Value = serde_json::from_str(&out).expect("JSON");
        assert_eq!([&record["cause"], &record["known"]], ["refused", "proved"]);
        let told = ["reason", "state", "flags"].map(|key| record[key].as_str().unwrap_or_default());
        assert_eq!(told, expected);
        assert_eq!([&record["sender"], &record["owner"]], [&Value::Null; 2]);
    }
}
