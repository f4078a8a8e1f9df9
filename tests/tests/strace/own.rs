//! `--trace` of `rstlab server` and `rstlab client` against strace of the same run: the same calls, in the same
//! order, with the same sizes and results.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rstlab_tests::{ChildProgram, binary, strace_calls};
use tempfile::TempDir;

/// The calls of the two programs on sockets, and the sleep.
const CALLS: &str = "trace=socket,setsockopt,bind,listen,getsockname,accept,accept4,connect,sendto,sendmsg,\
                     recvfrom,recvmsg,read,ioctl,shutdown,close,nanosleep,clock_nanosleep";

/// `rstlab` under strace and with its own `--trace`.
fn traced(output: &Path, args: &[&str]) -> ChildProgram {
    let mut command = Command::new("strace");
    // -D leaves the program our own child.
    command
        .args(["-D", "-f", "-s", "32", "-e", CALLS, "-o"])
        .arg(output)
        .arg(binary("rstlab"))
        .args(args)
        .arg("--trace");
    ChildProgram::start(command)
}

/// The calls of a run: of each program its own trace, and that of strace.
struct TracedRun {
    server: (Vec<String>, Vec<String>),
    client: (Vec<String>, Vec<String>),
    _directory: TempDir,
}

fn run(client_args: &[&str], server_args: &[&str]) -> TracedRun {
    let directory = TempDir::new().unwrap();
    let output = |name: &str| -> PathBuf { directory.path().join(name) };
    let mut server = traced(
        &output("server"),
        &[&["server", "--port=0"], server_args].concat(),
    );
    let line = server.wait_for("getsockname(");
    let (_, port) = line.split_once("htons(").expect("an address");
    let port = format!("--port={}", &port[..port.find(')').unwrap()]);
    let client = traced(
        &output("client"),
        &[&["client", port.as_str()], client_args].concat(),
    );
    let client = client.wait();
    assert_eq!(client.status.code(), Some(0), "{:#?}", client.log);
    server.wait_for("close(");
    let server = server.stop();
    let strace = |name| by_strace(&fs::read_to_string(output(name)).unwrap());
    TracedRun {
        server: (by_us(&server.log), strace("server")),
        client: (by_us(&client.log), strace("client")),
        _directory: directory,
    }
}

/// The calls in the lines of `--trace`; checks the form of the lines.
fn by_us(log: &[String]) -> Vec<String> {
    let call = |line: &String| {
        let (time, rest) = line.split_once(' ').expect("a time");
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        assert!(
            time.len() == 15 && time.split([':', '.']).all(digits),
            "{line}"
        );
        let (call, took) = rest.rsplit_once(" <").expect("a duration");
        let took: f64 = took.trim_end_matches('>').parse().unwrap();
        assert!((0.0..60.0).contains(&took), "{line}");
        normal(call)
    };
    log.iter().map(call).collect()
}

/// The calls in strace's lines that returned, from the first socket on.
fn by_strace(trace: &str) -> Vec<String> {
    let mut calls = Vec::new();
    for text in strace_calls(trace) {
        let returned = text.contains(" = ") && !text.contains(" = ?");
        // The standard library calls ioctl for terminals.
        if returned && (!text.starts_with("ioctl(") || text.contains("FIONREAD")) {
            calls.push(normal(&text));
        }
    }
    let first = calls.iter().position(|call| call.starts_with("socket("));
    calls.split_off(first.expect("a socket"))
}

/// A call without the parts that differ: pointers, columns, and a `struct timeval`, which strace shows as bytes.
fn normal(call: &str) -> String {
    let (call, returned) = call.rsplit_once(" = ").expect("a result");
    let call = call.trim_end();
    let call = match call.split_once("TIMEO") {
        Some((call, _)) => call.to_owned() + "TIMEO",
        None => call.to_owned(),
    };
    let words: Vec<&str> = call
        .split(", ")
        .map(|word| match word.strip_prefix("0x") {
            Some(pointer) if pointer.ends_with(')') => "...)",
            Some(_) => "...",
            None => word,
        })
        .collect();
    format!("{} = {returned}", words.join(", "))
}

fn count(calls: &[String], name: &str) -> usize {
    calls.iter().filter(|call| call.starts_with(name)).count()
}

#[test]
fn own_trace_is_what_strace_sees_of_a_clean_end() {
    let run = run(&[], &["--sleep=0s"]);
    assert_eq!(run.server.0, run.server.1);
    assert_eq!(run.client.0, run.client.1);
    assert_eq!(count(&run.server.0, "sendto("), 10);
    assert_eq!(count(&run.server.0, "clock_nanosleep("), 0);
    let end = &run.client.0[run.client.0.len() - 2..];
    assert_eq!(
        end,
        ["recvfrom(3, \"\", 4096, 0, NULL, NULL) = 0", "close(3) = 0"]
    );
}

#[test]
fn own_trace_is_what_strace_sees_of_a_reset() {
    // The pause lets the unread bytes arrive. The traces agree even if the bytes come later.
    let run = run(&["--spam"], &["--sleep=300ms"]);
    assert_eq!(run.server.0, run.server.1);
    assert_eq!(run.client.0, run.client.1);
    assert_eq!(count(&run.server.0, "clock_nanosleep("), 1);
    assert_eq!(count(&run.client.0, "sendto("), 1);
}
