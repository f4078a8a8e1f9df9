//! Mode `kill`: each connection has a process, which is killed in the middle of its response.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::thread;

use common::{BODY, LARGE, mode, post};
use rstlab_tests::{Server, connect, soon};
use rstlab_upstream::{Mode, UpstreamConfig as Config, run};
use rstlab_witness::{Takers, Witness};
use rustix::process::Signal;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

/// A server in mode kill.
fn start(response_bytes: u64) -> Server {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rstlab-upstream"));
    command
        .args(["--mode=kill", "--listen=127.0.0.1:0", "--witness=sockets"])
        .arg("--log-format=json")
        .arg(format!("--response-bytes={response_bytes}"))
        .env_clear();
    Server::start(command)
}

/// The next line of its log.
fn line(server: &mut Server) -> Value {
    serde_json::from_str(&server.line()).unwrap()
}

/// The server's children, also those that are dead and not waited for.
fn children(server: &Server) -> Vec<i32> {
    let ours = format!("PPid:\t{}\n", server.pid().as_raw_pid());
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

/// The body's length and how the stream ended.
fn read(stream: &mut TcpStream) -> (usize, io::Result<usize>) {
    let mut bytes = Vec::new();
    let end = stream.read_to_end(&mut bytes);
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n");
    (bytes.len() - head.map_or(0, |at| at + 4), end)
}

#[test]
fn a_kill_with_nothing_unread_is_half_a_response_and_a_fin() {
    for bytes in [1, 614_400, LARGE] {
        let mut server = start(bytes);
        let mut client = connect(server.address).unwrap();
        // One recv takes head and body.
        let request = [post(22).as_bytes(), BODY].concat();
        client.write_all(&request).unwrap();
        let (body, end) = read(&mut client);
        assert!(end.is_ok(), "{end:?}");
        assert_eq!(body as u64, bytes / 2);
        let line = line(&mut server);
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
fn a_kill_with_the_body_unread_is_a_reset() {
    let mut server = start(LARGE);
    let mut client = connect(server.address).unwrap();
    client.write_all(post(22).as_bytes()).unwrap();
    // The head was read, and half of the response is more than the buffers hold.
    client.peek(&mut [0]).unwrap();
    client.write_all(BODY).unwrap();
    let (body, end) = read(&mut client);
    assert_eq!(end.unwrap_err().raw_os_error(), Some(104));
    assert!((body as u64) < LARGE);
    let line = line(&mut server);
    assert_eq!(
        (&line["body_bytes"], &line["unread_bytes"]),
        (&0.into(), &22.into())
    );
}

#[test]
fn kill_answers_refusals_and_health_checks_wholly() {
    let mut server = start(1000);
    for (request, status) in [
        ("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", "204"),
        ("GET / HTTP/1.1\r\nno colon\r\n\r\n", "400"),
    ] {
        let mut client = connect(server.address).unwrap();
        client.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(&answer[9..12], status);
    }
    // The health check leaves no line.
    assert_eq!(line(&mut server)["status"], 400);
}

/// More clients than there may be processes; afterwards none is left, dead or alive.
#[test]
fn every_child_is_waited_for() {
    const CLIENTS: usize = 200;
    let mut server = start(1000);
    let clients: Vec<TcpStream> = (0..CLIENTS)
        .map(|_| connect(server.address).unwrap())
        .collect();
    let threads: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            thread::spawn(move || {
                client.write_all(post(0).as_bytes()).unwrap();
                read(&mut client).0
            })
        })
        .collect();
    assert!(children(&server).len() <= 64);
    for thread in threads {
        assert_eq!(thread.join().unwrap(), 500);
    }
    // A line is written once its child has been waited for; the advice about the cause comes once.
    let messages = (0..=CLIENTS).map(|_| line(&mut server)["message"].clone());
    let advice: Vec<_> = messages.filter(|it| it != "closed").collect();
    let advice: Vec<_> = advice.iter().filter_map(Value::as_str).collect();
    assert!(matches!(*advice, [one] if one.starts_with("what to do about killed: ")));
    assert_eq!(children(&server), Vec::<i32>::new());
}

#[test]
fn no_child_outlives_its_parent() {
    let server = start(LARGE);
    // The client reads nothing, so that the child waits in its write.
    let mut client = connect(server.address).unwrap();
    client.write_all(post(0).as_bytes()).unwrap();
    client.peek(&mut [0]).unwrap();
    assert_eq!(children(&server).len(), 1);
    let logged = server.said().lines().count();
    server.signal(Signal::KILL);
    // The log ends when the last process that holds it has.
    assert_eq!(server.wait().log.len(), logged);
    let (body, _) = read(&mut client);
    assert!((body as u64) < LARGE / 2);
}

#[test]
fn stopping_ends_children_whose_clients_say_nothing() {
    let server = start(1000);
    let mut silent = connect(server.address).unwrap();
    // Served after the silent one was taken, so that its process has been asked for.
    let mut client = connect(server.address).unwrap();
    client.write_all(post(0).as_bytes()).unwrap();
    assert_eq!(read(&mut client).0, 500);
    server.terminate();
    assert_eq!(silent.read(&mut [0]).unwrap(), 0);
    let ended = server.wait();
    assert_eq!(ended.status.code(), Some(0));
    assert_eq!(ended.count("ERROR"), 0, "{:?}", ended.log);
}

async fn listener() -> (tokio::net::TcpListener, SocketAddr) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[tokio::test]
async fn run_in_mode_kill_without_a_program_names_the_program_that_it_needs() {
    let (listener, _) = listener().await;
    let error = run(
        listener,
        mode(Mode::Kill).into(),
        Takers::default(),
        Witness::default(),
        CancellationToken::new(),
    )
    .await
    .unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::Unsupported);
    assert!(error.to_string().contains("rstlab-upstream"), "{error}");
}

#[tokio::test]
async fn run_in_mode_kill_starts_the_program_of_its_configuration() {
    for (program, bytes) in [
        (env!("CARGO_BIN_EXE_rstlab-upstream"), 307_200),
        // A program that is not there, and one that makes no report: the connection is closed.
        ("/nowhere/rstlab-upstream", 0),
        ("/bin/true", 0),
    ] {
        let (listener, address) = listener().await;
        let config = Config {
            program: Some(program.into()),
            ..mode(Mode::Kill)
        };
        let stop = CancellationToken::new();
        let server = tokio::spawn(run(
            listener,
            config.into(),
            Takers::default(),
            Witness::default(),
            stop.clone(),
        ));
        let body = tokio::task::spawn_blocking(move || {
            let mut client = TcpStream::connect(address).unwrap();
            // Fails if the connection is closed already.
            let _ = client.write_all(post(0).as_bytes());
            read(&mut client).0
        });
        assert_eq!(body.await.unwrap(), bytes, "{program}");
        stop.cancel();
        soon(server).await.unwrap().unwrap();
    }
}
