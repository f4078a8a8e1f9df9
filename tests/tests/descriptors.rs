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
