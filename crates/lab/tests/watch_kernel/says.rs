use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use rstlab_witness::Cause;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::beside::{Beside, alone, connection, listener, reset};

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

/// A reset of each of two kinds: with unread bytes, and by data after the close. What is told of them, as the schema
/// says, and the clients' addresses.
fn two_resets(witness: &str, listener: &TcpListener) -> ([Value; 2], [SocketAddr; 2]) {
    let port = listener
        .local_addr()
        .expect("an address")
        .port()
        .to_string();
    let mut watch = Beside::watch(&[
        "--witness",
        witness,
        "--json",
        "--port",
        &port,
        "--count",
        "2",
    ]);
    let first = reset(listener);
    let (mut server, mut second) = connection(listener);
    // Until nothing more goes: so the FIN stays behind, and the connection is not yet a time-wait.
    server.set_nonblocking(true).expect("sets");
    while server.write(&[0; 65536]).is_ok() {}
    drop(server);
    second.write_all(b"x").expect("sends");
    let out = watch.output();
    let (status, summary) = watch.end();
    assert!(status.success(), "{status} {summary}");
    assert!(summary.contains("resets: 2, echoes: 0, lost "), "{summary}");
    assert!(!summary.contains("missing"), "{summary}");

    let schema = schema();
    let records: Vec<Value> = out
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    for record in &records {
        assert_eq!(keys(record), required(&schema));
        assert_eq!(record["witness"], witness);
        for (key, value) in record.as_object().expect("an object") {
            if let Some(allowed) = schema["properties"][key]["enum"].as_array() {
                assert!(allowed.contains(value), "{key}: {value}");
            }
        }
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

fn schema() -> Value {
    serde_json::from_str(include_str!("../../schema/watch.json")).expect("JSON")
}

#[test]
fn the_kernel_says_who_and_why() {
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
    let schema = schema();
    for (record, key) in [(&closed, "sender"), (&late, "owner")] {
        assert_eq!(keys(&record[key]), required(&schema["properties"][key]));
    }
}

#[test]
fn the_packets_say_what_they_show() {
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
    let schema = schema();
    let causes = schema["properties"]["cause"]["enum"]
        .as_array()
        .expect("a list");
    for cause in Cause::ALL {
        // These are about a request, or about no RST at all.
        let of_more = [
            Cause::KeepAliveRace,
            Cause::ClosedWithoutAnswer,
            Cause::NoReset,
        ]
        .contains(&cause);
        assert_eq!(causes.contains(&cause.as_str().into()), !of_more, "{cause}");
    }
}

#[test]
fn a_killed_process_is_told_as_one() {
    let _alone = alone();
    let (listener, address) = listener();
    let port = address.port().to_string();
    let mut watch = Beside::watch(&["--json", "--port", &port, "--count", "3"]);
    let mut pids = Vec::new();
    for signal in [Some(Signal::KILL), Some(Signal::TERM), None] {
        let (server, mut client) = connection(&listener);
        client.write_all(b"x").expect("sends");
        server.peek(&mut [0]).expect("arrives");
        // The connection is its standard error, and nobody else has it once it is started. cat ends with its
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
    }
    let out = watch.output();
    assert!(watch.end().0.success());
    let records: Vec<Value> = out
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let told = |key: &str| records.iter().map(|it| it[key].clone()).collect::<Vec<_>>();
    assert_eq!(told("cause"), ["killed", "killed", "unread-at-close"]);
    assert_eq!(told("known"), ["proved"; 3]);
    assert_eq!(told("reason"), ["TCP_ABORT_ON_CLOSE"; 3]);
    let senders: Vec<_> = records
        .iter()
        .map(|it| it["sender"]["pid"].clone())
        .collect();
    assert_eq!(senders, pids, "{out}");
}

#[test]
fn several_ports_and_all_of_them() {
    let _alone = alone();
    let listeners: Vec<_> = (0..40).map(|_| listener().0).collect();
    let ports: Vec<_> = listeners
        .iter()
        .map(|it| it.local_addr().expect("an address").port().to_string())
        .collect();
    let [first, second, other] = [&listeners[0], &listeners[1], &listeners[39]];
    for witness in ["kernel", "packets"] {
        // Two of them, more than a filter takes, and all.
        for (asked, seen) in [(&ports[..2], 3), (&ports[..39], 3), (&[][..], 4)] {
            let mut args = vec!["--witness", witness, "--json"];
            args.extend(asked.iter().flat_map(|port| ["--port", port.as_str()]));
            let mut watch = Beside::watch(&args);
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
fn text_fits_a_terminal() {
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
        let mut watch = Beside::watch(&["--witness", witness, "--port", &port, "--count", "1"]);
        reset(&listener);
        let out = watch.output();
        assert!(out.contains(head), "{out}");
        let body = format!(", pid {}. {body}", std::process::id());
        assert!(out.contains(&body), "{out}");
        let lines = out.lines().chain(watch.said.lines());
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
        let mut watch = Beside::watch(&[
            "--witness",
            witness,
            "--json",
            "--port",
            &port,
            "--count",
            "1",
        ]);
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
