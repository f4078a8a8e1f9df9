//! The recorded timeline of rstlab-upstream against `strace -ttt` of the same run.

#![cfg(feature = "peers")]
// Helpers of tests, outside of #[test].
#![allow(clippy::unwrap_used)]

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::process::Command;

use rstlab_tests::{Server, binary, connect, strace_calls};
use rstlab_wire::SysCall;
use rstlab_witness::{Lane, Record, What};
use tempfile::TempDir;

const HEAD: &[u8] = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 22\r\n\r\n";
const BODY: &[u8] = b"looked at by nobody ..";

/// A call and what it returned: bytes or zero, or its error number.
type Called = (SysCall, Result<u64, i32>);

/// Calls with the seconds at which each began, on any clock.
type TimedCalls = Vec<(f64, Called)>;

#[test]
fn the_recorded_calls_are_those_of_strace_in_order_and_size() {
    for mode in ["lazy", "delay", "linger", "abort", "truncate"] {
        let directory = TempDir::new().unwrap();
        let (traced, recorded) = run(mode, &directory);
        assert!(traced.len() >= 8, "{mode}: {traced:?}");
        let names = |calls: &[(f64, Called)]| -> Vec<Called> {
            calls.iter().map(|(_, called)| *called).collect()
        };
        assert_eq!(names(&recorded), names(&traced), "{mode}");
        // The clocks differ, but the pauses are the same. strace stops the program at each call, so they agree roughly.
        let length = |calls: &[(f64, Called)]| calls.last().unwrap().0 - calls[0].0;
        let difference = (length(&recorded) - length(&traced)).abs();
        assert!(difference < 0.5, "{mode}: {difference} s");
    }
}

/// One request to an upstream under strace; what strace saw on its connection, and what was recorded of it.
fn run(mode: &str, directory: &TempDir) -> (TimedCalls, TimedCalls) {
    let output = directory.path().join("strace");
    let records = directory.path().join("records");
    let mut command = Command::new("strace");
    // -D leaves the server our own child; -yy names both ends of a socket.
    command
        .args(["-D", "-f", "-ttt", "-yy", "-s", "0", "-e"])
        .arg("trace=accept4,setsockopt,recvfrom,writev,shutdown,ioctl,getsockopt,close")
        .arg("-o")
        .arg(&output)
        .arg(binary("rstlab-upstream"))
        .args(["--listen=127.0.0.1:0", "--witness=sockets", "--mode", mode])
        .args(["--close-delay=20ms", "--linger-timeout=100ms", "--record"])
        .arg(&records);
    let mut server = Server::start(command);

    let mut client = connect(server.address).unwrap();
    client.write_all(HEAD).unwrap();
    if mode == "truncate" {
        // An upstream in this mode reads the body first.
        client.write_all(BODY).unwrap();
    }
    client.read_exact(&mut [0; 1000]).unwrap();
    if mode != "truncate" {
        // A server that has closed resets the connection.
        let _ = client.write_all(BODY);
    }
    let _ = client.read_to_end(&mut Vec::new());
    drop(client);
    server.wait_for(" closed ");
    server.stop();

    let trace = fs::read_to_string(&output).unwrap();
    let mut files: Vec<_> = fs::read_dir(&records)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.retain(|file| file.extension() == Some(OsStr::new("json")));
    assert_eq!(files.len(), 1, "{mode}: one connection");
    let record = Record::read(&files[0]).unwrap();
    (traced(&trace), recorded(&record))
}

fn recorded(record: &Record) -> TimedCalls {
    let calls = record.events.iter().filter_map(|event| {
        let What::Call {
            call,
            returned,
            errno,
        } = event.what
        else {
            return None;
        };
        assert_eq!(event.lane, Lane::Upstream);
        let called = (call, returned.ok_or(errno.unwrap_or(0)));
        Some((event.at_ns as f64 / 1e9, called))
    });
    calls.collect()
}

/// The calls on accepted connections; those that would have blocked are left out, as on the tape.
fn traced(trace: &str) -> TimedCalls {
    let mut calls = Vec::new();
    for text in strace_calls(trace) {
        let (time, text) = text.split_once(' ').unwrap();
        // An accepted connection has two ends; the runtime's own socket pairs are of another kind.
        if text.contains("<TCP:[") && text.contains("->") && !text.contains("EAGAIN") {
            calls.extend(called(text).map(|called| (time.parse().unwrap(), called)));
        }
    }
    calls
}

fn called(text: &str) -> Option<Called> {
    let (name, arguments) = text.split_once('(')?;
    let (arguments, returned) = arguments.rsplit_once(" = ")?;
    // The number that the kernel wrote, as in `[22]`.
    let told = || {
        let (_, told) = arguments.rsplit_once('[')?;
        told.split(']').next()?.parse::<u64>().ok()
    };
    let call = match name {
        "accept4" => SysCall::Accept4,
        "setsockopt" if arguments.contains("TCP_NODELAY") => SysCall::Nodelay,
        "setsockopt" if arguments.contains("SO_LINGER") => SysCall::LingerZero,
        "recvfrom" if arguments.contains("MSG_PEEK") => SysCall::Peek,
        "recvfrom" => SysCall::Recv,
        "writev" => SysCall::Writev,
        "shutdown" => SysCall::Shutdown,
        "ioctl" if arguments.contains("FIONREAD") => return Some((SysCall::Unread, Ok(told()?))),
        "ioctl" if arguments.contains("TIOCOUTQ") => return Some((SysCall::Unsent, Ok(told()?))),
        "getsockopt" if arguments.contains("SO_ERROR") => {
            // `[0], [4]`: the error, and its length.
            let error = arguments.split('[').rev().nth(1)?.split(']').next()?;
            let error = match error {
                "ECONNRESET" => 104,
                "EPIPE" => 32,
                number => number.parse().ok()?,
            };
            let returned = if error == 0 { Ok(0) } else { Err(error) };
            return Some((SysCall::SoError, returned));
        }
        "close" => SysCall::Close,
        _ => return None,
    };
    let returned = match returned.split([' ', '<']).next()?.parse::<i64>().ok()? {
        -1 if returned.contains("ECONNRESET") => Err(104),
        -1 if returned.contains("EPIPE") => Err(32),
        -1 if returned.contains("ENOTCONN") => Err(107),
        -1 => panic!("{text}"),
        // The descriptor is not on the tape.
        _ if call == SysCall::Accept4 => Ok(0),
        value => Ok(u64::try_from(value).unwrap()),
    };
    Some((call, returned))
}
