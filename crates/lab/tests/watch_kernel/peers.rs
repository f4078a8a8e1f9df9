//! Names the process of every RST that gunicorn, uvicorn and Node send.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use rstlab_tests::LIMIT;
use rustix::process::Signal;

use crate::beside::{Beside, alone};
use crate::compare::Compare;

const CLIENTS: usize = 4;
const REQUESTS_OF_EACH: usize = 250;

/// Head and body, which the server ignores.
const HEAD: &[u8] =
    b"POST /ignore HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: 22\r\n\r\n";
const BODY: &[u8] = &[b'b'; 22];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn installed(name: &str) -> Command {
    let program = root().join(".venv").join(name);
    assert!(
        program.exists(),
        "{} is missing: tests/run.sh installs it",
        program.display()
    );
    Command::new(program)
}

fn gunicorn() -> Command {
    let mut command = installed("gunicorn-23.0.0/bin/gunicorn");
    command
        .args(["--bind", "127.0.0.1:0", "--worker-class", "sync", "--chdir"])
        .arg(root().join("tests/peers"))
        .arg("app:app");
    command
}

fn uvicorn() -> Command {
    let mut command = installed("uvicorn-0.54.0/bin/uvicorn");
    command
        .args(["--host", "127.0.0.1", "--port", "0", "--no-access-log"])
        .arg("--app-dir")
        .arg(root().join("tests/peers"))
        .arg("asgi:app");
    command
}

fn node() -> Command {
    let mut command = Command::new("node");
    command.arg(root().join("tests/peers/app.js")).arg("0");
    command
}

/// Sends requests in two pieces. The body comes too late: the response has begun, or the server has closed.
fn ask(server: SocketAddr) {
    let mut buf = vec![0; 65536];
    for n in 0..REQUESTS_OF_EACH {
        let mut stream = TcpStream::connect(server).expect("connects");
        stream.set_read_timeout(Some(LIMIT)).expect("sets");
        stream.write_all(HEAD).expect("sends");
        if n % 2 == 0 {
            stream.read_exact(&mut [0]).expect("it answers");
        } else {
            while stream.read(&mut buf).expect("no reset as yet") > 0 {}
        }
        // The reset that the test wants may make this write or the next read fail.
        let _ = stream.write_all(BODY);
        while stream.read(&mut buf).is_ok_and(|bytes| bytes > 0) {}
    }
}

fn names_every_rst_beside(mut command: Command) {
    let _alone = alone();
    command
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdout(Stdio::null());
    for witness in ["kernel", "packets"] {
        let mut peer = Beside::start(&mut command, "http://127.0.0.1:");
        let address = peer.said.rsplit_once("http://").and_then(|(_, rest)| {
            rest.split_ascii_whitespace()
                .next()?
                .parse::<SocketAddr>()
                .ok()
        });
        let address = address.unwrap_or_else(|| panic!("no address in {}", peer.said));
        let compare = Compare::start(witness, address);
        let begun = Instant::now();
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| thread::spawn(move || ask(address)))
            .collect();
        for client in clients {
            client.join().expect("ends");
        }
        let took = begun.elapsed();
        let told = compare.finish();
        let mut resets = 0;
        // A client sends a RST as well if, say, its SYN meets a TIME-WAIT socket (`tcp_rcv_synsent_state_process`). The
        // comparison with tcpdump has held that RST already.
        let server = address.to_string();
        for record in told.firsts().filter(|it| it["from"] == *server) {
            resets += 1;
            let names = [&record["sender"]["name"], &record["owner"]["name"]];
            assert!(names.iter().any(|name| name.is_string()), "{record}");
        }
        eprintln!(
            "{} by {witness}: {resets} resets of {} requests, {:.0} a second, {} RSTs, {:?} of processor time",
            command.get_program().display(),
            CLIENTS * REQUESTS_OF_EACH,
            resets as f64 / took.as_secs_f64(),
            told.records.len(),
            told.processor_time
        );
        assert!(resets >= CLIENTS * REQUESTS_OF_EACH / 2);
        peer.signal(Signal::TERM);
        peer.end();
    }
}

#[test]
fn every_rst_of_gunicorn_is_named() {
    names_every_rst_beside(gunicorn());
}

#[test]
fn every_rst_of_uvicorn_is_named() {
    names_every_rst_beside(uvicorn());
}

#[test]
fn every_rst_of_node_is_named() {
    names_every_rst_beside(node());
}
