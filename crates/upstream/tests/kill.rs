//! `kill`: a process for each connection, dead in the middle of its response.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::io::{self, BufRead, BufReader, Lines, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::thread;
use std::time::Duration;

use common::{BODY, LARGE, mode, post};
use rstlab_upstream::{Config, Mode, run};
use rstlab_witness::Witness;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

/// A server in mode kill. Killed when a test fails.
struct Server {
    child: Child,
    log: Lines<BufReader<ChildStderr>>,
    address: String,
}

impl Server {
    fn start(response_bytes: u64) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_rstlab-upstream"))
            .args(["--mode=kill", "--listen=127.0.0.1:0", "--witness=sockets"])
            .arg("--log-format=json")
            .arg(format!("--response-bytes={response_bytes}"))
            .env_clear()
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut server = Self {
            child,
            log,
            address: String::new(),
        };
        let address = &server.line()["address"];
        server.address = address.as_str().unwrap().to_owned();
        server
    }

    fn line(&mut self) -> Value {
        serde_json::from_str(&self.log.next().unwrap().unwrap()).unwrap()
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_nodelay(true).unwrap();
        // A hang shall fail, not hang.
        let limit = Some(Duration::from_secs(50));
        stream.set_read_timeout(limit).unwrap();
        stream
    }

    /// Its children, and what became of them and was not waited for.
    fn children(&self) -> Vec<i32> {
        let ours = format!("PPid:\t{}\n", self.child.id());
        let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| {
            let name = entry.unwrap().file_name();
            name.to_str()?.parse::<i32>().ok()
        });
        pids.filter(|pid| {
            let status = fs::read_to_string(format!("/proc/{pid}/status"));
            status.is_ok_and(|status| status.contains(&ours))
        })
        .collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Fails if it has ended, and that is well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The body's length and how the stream ended.
fn read(stream: &mut TcpStream) -> (usize, io::Result<usize>) {
    let mut bytes = Vec::new();
    let end = stream.read_to_end(&mut bytes);
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n");
    (bytes.len() - head.map_or(0, |at| at + 4), end)
}

#[test]
fn with_nothing_unread_it_is_half_a_response_and_a_fin() {
    for bytes in [1, 614_400, LARGE] {
        let mut server = Server::start(bytes);
        let mut client = server.connect();
        // One recv takes head and body.
        let request = [post(22).as_bytes(), BODY].concat();
        client.write_all(&request).unwrap();
        let (body, end) = read(&mut client);
        assert!(end.is_ok(), "{end:?}");
        assert_eq!(body as u64, bytes / 2);
        let line = server.line();
        assert_eq!(line["message"], "closed");
        assert_eq!(line["mode"], "kill");
        assert_eq!(line["status"], 200);
        assert_eq!(
            (&line["body_bytes"], &line["unread_bytes"]),
            (&22.into(), &0.into())
        );
    }
}

#[test]
fn with_the_body_unread_it_is_a_reset() {
    let mut server = Server::start(LARGE);
    let mut client = server.connect();
    client.write_all(post(22).as_bytes()).unwrap();
    // The head was read, and half of the response is more than the buffers hold.
    client.peek(&mut [0]).unwrap();
    client.write_all(BODY).unwrap();
    let (body, end) = read(&mut client);
    assert_eq!(end.unwrap_err().raw_os_error(), Some(104));
    assert!((body as u64) < LARGE);
    let line = server.line();
    assert_eq!(
        (&line["body_bytes"], &line["unread_bytes"]),
        (&0.into(), &22.into())
    );
}

#[test]
fn who_is_refused_or_asks_for_health_gets_a_whole_answer() {
    let mut server = Server::start(1000);
    for (request, status) in [
        ("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", "204"),
        ("GET / HTTP/1.1\r\nno colon\r\n\r\n", "400"),
    ] {
        let mut client = server.connect();
        client.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(&answer[9..12], status);
    }
    // The health check leaves no line.
    assert_eq!(server.line()["status"], 400);
}

/// More clients than there may be processes; afterwards none is left, dead or alive.
#[test]
fn every_child_is_waited_for() {
    const CLIENTS: usize = 200;
    let mut server = Server::start(1000);
    let clients: Vec<TcpStream> = (0..CLIENTS).map(|_| server.connect()).collect();
    let threads: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            thread::spawn(move || {
                client.write_all(post(0).as_bytes()).unwrap();
                read(&mut client).0
            })
        })
        .collect();
    assert!(server.children().len() <= 64);
    for thread in threads {
        assert_eq!(thread.join().unwrap(), 500);
    }
    // A line is written once its child has been waited for.
    for _ in 0..CLIENTS {
        assert_eq!(server.line()["message"], "closed");
    }
    assert_eq!(server.children(), Vec::<i32>::new());
}

#[test]
fn no_child_outlives_its_parent() {
    let mut server = Server::start(LARGE);
    // One whose response nobody reads: it stands in its writing.
    let mut client = server.connect();
    client.write_all(post(0).as_bytes()).unwrap();
    client.peek(&mut [0]).unwrap();
    assert_eq!(server.children().len(), 1);
    server.child.kill().unwrap();
    server.child.wait().unwrap();
    // The log ends when the last process that holds it has.
    assert!(server.log.next().is_none());
    let (body, _) = read(&mut client);
    assert!((body as u64) < LARGE / 2);
}

#[test]
fn stopping_ends_those_whose_clients_say_nothing() {
    let mut server = Server::start(1000);
    let mut silent = server.connect();
    // Served after the silent one was taken, so that its process has been asked for.
    let mut client = server.connect();
    client.write_all(post(0).as_bytes()).unwrap();
    assert_eq!(read(&mut client).0, 500);
    kill_process(Pid::from_child(&server.child), Signal::TERM).unwrap();
    assert_eq!(silent.read(&mut [0]).unwrap(), 0);
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
    let rest: String = server.log.by_ref().map(Result::unwrap).collect();
    assert!(!rest.contains("ERROR"), "{rest}");
}

async fn listener() -> (tokio::net::TcpListener, SocketAddr) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[tokio::test]
async fn in_process_without_a_program_it_says_what_it_needs() {
    let (listener, _) = listener().await;
    let error = run(
        listener,
        mode(Mode::Kill),
        Witness::default(),
        CancellationToken::new(),
    )
    .await
    .unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::Unsupported);
    assert!(error.to_string().contains("rstlab-upstream"), "{error}");
}

#[tokio::test]
async fn in_process_it_takes_the_program_s_path() {
    for (program, bytes) in [
        (env!("CARGO_BIN_EXE_rstlab-upstream"), 307_200),
        // Not there, and not ours: the connection is closed.
        ("/nowhere/rstlab-upstream", 0),
        ("/bin/true", 0),
    ] {
        let (listener, address) = listener().await;
        let config = Config {
            program: Some(program.into()),
            ..mode(Mode::Kill)
        };
        let stop = CancellationToken::new();
        let server = tokio::spawn(run(listener, config, Witness::default(), stop.clone()));
        let body = tokio::task::spawn_blocking(move || {
            let mut client = TcpStream::connect(address).unwrap();
            // Fails if the connection is closed already.
            let _ = client.write_all(post(0).as_bytes());
            read(&mut client).0
        });
        assert_eq!(body.await.unwrap(), bytes, "{program}");
        stop.cancel();
        server.await.unwrap().unwrap();
    }
}
