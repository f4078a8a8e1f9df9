//! Each worker serves some of the clients, over upstream connections of its own.

use std::collections::HashSet;
use std::num::NonZeroUsize;

use crate::log::Log;
use crate::support::{Proxy, config};
use rstlab_proxy::ProxyConfig as Config;
use rstlab_tests::{Peer, read_exactly, read_head, try_read_head};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n";

/// Sends a request, and returns the number of the upstream connection that answered.
async fn upstream_of(client: &mut TcpStream, log: &mut Log) -> u8 {
    client.write_all(GET).await.unwrap();
    read_head(client).await;
    let number = read_exactly(client, 1).await[0];
    log.wait_for("upstream connection kept").await;
    number
}

#[tokio::test]
async fn two_workers_share_the_clients_and_no_kept_connection() {
    let mut log = Log::start();
    // Answers every request with the number of the connection.
    let upstream = Peer::start(|mut stream, number| async move {
        while try_read_head(&mut stream).await.is_some() {
            let head = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n";
            stream.write_all(head).await.unwrap();
            stream.write_all(&[number as u8]).await.unwrap();
        }
    })
    .await;
    let proxy = Proxy::start(Config {
        workers: NonZeroUsize::MIN.saturating_add(1),
        upstream_keepalive: true,
        ..config(&upstream)
    })
    .await;
    // One request at a time: a worker needs one upstream connection.
    let (mut clients, mut seen) = (Vec::new(), HashSet::new());
    while seen.len() < 2 {
        assert!(clients.len() < 200, "the kernel gives all to one worker");
        let mut client = proxy.connect().await;
        let number = upstream_of(&mut client, &mut log).await;
        seen.insert(number);
        clients.push((client, number));
    }
    for (client, number) in &mut clients {
        assert_eq!(upstream_of(client, &mut log).await, *number);
    }
    let requests = 2 * clients.len() as u64;
    drop(clients);
    assert_eq!(proxy.stop().await.requests, requests);
}
