//! The server as a whole: it serves many clients, and stops when told to.

#![allow(clippy::unwrap_used)]

mod common;

use common::{BODY, mode, post};
use rstlab_tests::soon;
use rstlab_upstream::{Mode, UpstreamConfig as Config, run};
use rstlab_witness::{Takers, Witness};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

struct Server {
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<std::io::Result<()>>,
}

async fn serve(config: Config) -> Server {
    let listener = rstlab_cli::listen("no setting", "127.0.0.1:0", config.sndbuf)
        .await
        .unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let task = tokio::spawn(run(
        listener,
        config.into(),
        Takers::default(),
        Witness::default(),
        stop.clone(),
    ));
    Server {
        address,
        stop,
        task,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_requests_from_a_hundred_clients() {
    let server = serve(mode(Mode::Drain)).await;
    let address = server.address;
    let mut clients = JoinSet::new();
    for _ in 0..100 {
        clients.spawn(async move {
            for _ in 0..10 {
                let mut client = TcpStream::connect(address).await.unwrap();
                client.write_all(post(22).as_bytes()).await.unwrap();
                client.write_all(BODY).await.unwrap();
                let mut answer = Vec::new();
                client.read_to_end(&mut answer).await.unwrap();
                assert!(answer.len() > 614_400);
            }
        });
    }
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    server.stop.cancel();
    soon(server.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn stopping_finishes_a_running_request() {
    let server = serve(mode(Mode::Drain)).await;
    let mut client = TcpStream::connect(server.address).await.unwrap();
    let head = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 22\r\nExpect: 100-continue\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    let mut proceed = [0; 25];
    client.read_exact(&mut proceed).await.unwrap();

    server.stop.cancel();
    client.write_all(BODY).await.unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    assert!(answer.len() > 614_400);
    soon(server.task).await.unwrap().unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn stopping_does_not_wait_for_a_client_that_says_nothing() {
    let server = serve(mode(Mode::Lazy)).await;
    let mut client = TcpStream::connect(server.address).await.unwrap();
    server.stop.cancel();
    let start = std::time::Instant::now();
    soon(server.task).await.unwrap().unwrap();
    assert!(start.elapsed() < rstlab_wire::accept::GRACE);
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn stopping_does_not_wait_for_a_kept_connection() {
    let server = serve(Config {
        response_bytes: 0,
        ..mode(Mode::IdleClose)
    })
    .await;
    let mut client = TcpStream::connect(server.address).await.unwrap();
    client.write_all(post(0).as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(client.read_u8().await.unwrap());
    }
    server.stop.cancel();
    let start = std::time::Instant::now();
    soon(server.task).await.unwrap().unwrap();
    assert!(start.elapsed() < rstlab_wire::accept::GRACE);
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
}

/// The server cannot close before almost all of the response has arrived, so that its RST cuts off only a little.
#[tokio::test]
async fn a_small_send_buffer_holds_little_of_a_response_back() {
    let server = serve(Config {
        sndbuf: Some(4096),
        ..mode(Mode::Lazy)
    })
    .await;
    let mut client = TcpStream::connect(server.address).await.unwrap();
    client.write_all(post(22).as_bytes()).await.unwrap();
    // The server has read the head alone, and has begun to answer.
    let mut answer = vec![client.read_u8().await.unwrap()];
    client.write_all(BODY).await.unwrap();
    let _reset = client.read_to_end(&mut answer).await;
    assert!(answer.len() > 500_000, "{}", answer.len());
}
