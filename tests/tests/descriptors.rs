//! A proxy that is short of file descriptors closes idle clients, and serves the others.

#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::sync::Arc;

use rstlab_tests::{Peer, Server, proxy_command, read_exactly, read_head, read_to_end, soon};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Idle clients; there are descriptors for twelve.
const CLIENTS: usize = 40;

async fn connect(address: SocketAddr, bytes: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    stream
}

/// A response on a connection that stays open.
async fn is_served(stream: &mut TcpStream) {
    assert!(read_head(stream).await.starts_with("HTTP/1.1 200"));
    assert_eq!(read_exactly(stream, 2).await, b"ok");
}

#[tokio::test]
async fn idle_clients_give_their_descriptors_to_new_ones() {
    let may_answer = Arc::new(Semaphore::new(0));
    let answers = Arc::clone(&may_answer);
    let (asked, mut slow_one) = tokio::sync::mpsc::unbounded_channel();
    let upstream = Peer::start(move |mut stream, _| {
        let (answers, asked) = (Arc::clone(&answers), asked.clone());
        async move {
            if read_head(&mut stream).await.starts_with("GET /slow") {
                asked.send(()).unwrap();
                answers.acquire().await.unwrap().forget();
            }
            stream.write_all(OK).await.unwrap();
        }
    })
    .await;
    // 64 descriptors are kept back. Of the other 16 clients may have 12.
    let limited = ["sh", "-c", "ulimit -n 80 && exec \"$0\""];
    let proxy = Server::start(proxy_command(&limited, upstream.address, &[]));

    // These two are older than all others: one waits for its response, one has sent the beginning of a request.
    let mut slow = connect(proxy.address, "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await;
    soon(slow_one.recv()).await.unwrap();
    let mut begun = connect(proxy.address, "GET / HTTP/1.1\r\nHo").await;

    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        // Every second client never sends a request.
        let request = match number % 2 {
            0 => "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            _ => "",
        };
        let mut client = connect(proxy.address, request).await;
        if number % 2 == 0 {
            is_served(&mut client).await;
        }
        clients.push(client);
    }
    for client in &mut clients[..CLIENTS / 2] {
        let rest = read_to_end(client).await;
        assert!(rest.end.is_ok() && rest.bytes.is_empty(), "a FIN: {rest:?}");
    }
    for client in &mut clients[CLIENTS - 4..] {
        client
            .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .unwrap();
        is_served(client).await;
    }
    begun
        .write_all(b"st: x\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(read_to_end(&mut begun).await.status(), 200);
    may_answer.add_permits(1);
    is_served(&mut slow).await;

    drop((clients, slow, begun));
    let ended = proxy.stop();
    let short = "file descriptors run short";
    let line = ended.log.iter().find(|line| line.contains(short)).unwrap();
    assert!(
        line.contains("descriptors=16") && line.contains("ulimit -n"),
        "{line}"
    );
    let requests = CLIENTS as u64 / 2 + 4 + 2;
    assert_eq!(ended.summary("requests"), requests);
    assert_eq!(ended.summary("whole"), requests);
}

/// The pipes that a process has open, counted by their ends.
fn pipe_ends(proxy: &Server) -> usize {
    let directory = format!("/proc/{}/fd", proxy.pid().as_raw_nonzero());
    let ends = std::fs::read_dir(directory).unwrap().flatten();
    // A descriptor may be closed between the two looks.
    ends.filter_map(|end| std::fs::read_link(end.path()).ok())
        .filter(|target| target.to_string_lossy().starts_with("pipe:"))
        .count()
}

async fn until_pipe_ends(proxy: &Server, count: usize) {
    soon(async {
        while pipe_ends(proxy) != count {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_large_response_has_a_pipe_while_it_lasts_and_is_copied_if_there_is_no_descriptor_for_one()
 {
    const LENGTH: usize = 64_000_000;
    let upstream = Peer::start(|mut stream, _| async move {
        read_head(&mut stream).await;
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        // The client may leave.
        let _ = stream.write_all(&vec![b'x'; LENGTH]).await;
    })
    .await;
    // 64 descriptors are kept back: six are for two clients, two upstream connections, and one pipe.
    for (limit, pipes) in [("ulimit -n 1000", 2), ("ulimit -n 70", 1)] {
        let limited = format!("{limit} && exec \"$0\"");
        let limited = ["sh", "-c", &limited];
        let settings = [("PROXY_WORKERS", "1"), ("PROXY_SPLICE", "on")];
        let proxy = Server::start(proxy_command(&limited, upstream.address, &settings));
        let before = pipe_ends(&proxy);
        let request = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let mut leaves = connect(proxy.address, request).await;
        let head = read_head(&mut leaves).await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let mut stays = connect(proxy.address, request).await;
        let head = read_head(&mut stays).await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        until_pipe_ends(&proxy, before + 2 * pipes).await;
        // The bytes in the pipe end with it.
        drop(leaves);
        let answer = read_to_end(&mut stays).await;
        assert!(answer.bytes.len() == LENGTH && answer.bytes.iter().all(|byte| *byte == b'x'));
        until_pipe_ends(&proxy, before).await;
        let ended = proxy.stop();
        assert_eq!((ended.summary("whole"), ended.summary("left")), (1, 1));
    }
}
