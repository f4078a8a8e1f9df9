use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::Value;

use crate::beside::{Beside, connection, listener, reset};

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

    let schema: Value =
        serde_json::from_str(include_str!("../../schema/watch.json")).expect("JSON");
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
