//! `rstlab check --as`: what a server sees of the client that is played.

#![allow(clippy::unwrap_used)]

use std::process::Output;

use rstlab_tests::{Peer, assert_contains, content_length, cut, rstlab_output, text, words};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy, sink};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// A request as the server saw it.
#[derive(Debug)]
struct Seen {
    head: String,
    body_bytes: usize,
    /// Bytes of the body that came with the head, in the first read.
    with_head: usize,
    /// Its place on the connection, from 0.
    place: usize,
}

/// Reads and answers requests until the client leaves.
async fn serve(mut stream: TcpStream, seen: mpsc::UnboundedSender<Seen>) {
    let mut buf = vec![0; 256 * 1024];
    for place in 0.. {
        let Ok(read @ 1..) = stream.read(&mut buf).await else {
            return;
        };
        let text = String::from_utf8_lossy(&buf[..read]);
        let (head, with_head) = text.split_once("\r\n\r\n").unwrap();
        let (head, with_head) = (head.to_owned() + "\r\n", with_head.len());
        let body_bytes = content_length(&head);
        if head.contains("Expect: 100-continue") {
            let go_on = b"HTTP/1.1 100 Continue\r\n\r\n";
            let _ = stream.write_all(go_on).await;
        }
        let rest = (body_bytes - with_head) as u64;
        let mut body = (&mut stream).take(rest);
        if !matches!(copy(&mut body, &mut sink()).await, Ok(read) if read == rest) {
            return;
        }
        let is_last = head.contains("Connection: close");
        let answer: &[u8] = match is_last {
            true => &cut(9, 9),
            false => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        };
        let _ = stream.write_all(answer).await;
        let one = Seen {
            head,
            body_bytes,
            with_head,
            place,
        };
        if seen.send(one).is_err() || is_last {
            return;
        }
    }
}

async fn check(peer: &Peer, args: &[&str]) -> Output {
    let url = format!("http://{}/", peer.address);
    rstlab_output(&[&["check", &url, "--trials=6"], args].concat()).await
}

/// What the server saw of a client that sends requests of these scenarios, and what the check printed.
async fn played(client: &str, skipped: &[&str]) -> (Vec<Seen>, String) {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let peer = Peer::start(move |stream, _| serve(stream, sender.clone())).await;
    let skip = [&["--skip"], skipped].concat();
    let output = check(&peer, &[&["--as", client], &skip[..]].concat()).await;
    let printed = words(text(&output.stdout));
    assert_eq!(output.status.code(), Some(0), "{printed} {output:?}");
    assert_contains(&printed, &[&format!("The client is played as {client}")]);
    peer.finish().await;
    let mut all = Vec::new();
    while let Ok(one) = receiver.try_recv() {
        all.push(one);
    }
    (all, printed)
}

fn of_size(seen: &[Seen], bytes: usize) -> impl Iterator<Item = &Seen> {
    let found = seen.iter().filter(move |one| one.body_bytes == bytes);
    assert!(found.clone().count() >= 6, "{seen:?}");
    found
}

#[tokio::test]
async fn nginx_asks_with_http_1_0_and_sends_the_beginning_of_the_body_with_the_head() {
    let (seen, printed) = played("nginx", &["body-large", "early-answer"]).await;
    for one in of_size(&seen, 22).chain(of_size(&seen, 60_000)) {
        assert!(one.head.starts_with("POST / HTTP/1.0\r\n"), "{one:?}");
        assert_contains(&one.head, &["Connection: close\r\n"]);
        // Later writes may have come before the server's first read.
        assert!(one.with_head >= one.body_bytes.min(8192), "{one:?}");
    }
    assert!(seen.iter().all(|one| one.place == 0), "{seen:?}");
    // One client reads at once, one reads late and stops; none reads on.
    assert_contains(&printed, &["body-with-head close pass 0/6 0/6 - - -"]);
}

#[tokio::test]
async fn traefik_keeps_its_connections() {
    let (seen, _) = played("traefik", &["body-large", "early-answer"]).await;
    for one in of_size(&seen, 22).chain(of_size(&seen, 60_000)) {
        assert!(one.head.starts_with("POST / HTTP/1.1\r\n"), "{one:?}");
        assert!(!one.head.contains("Connection:"), "{one:?}");
    }
    assert!(seen.iter().any(|one| one.place == 1), "{seen:?}");
}

#[tokio::test]
async fn curl_sends_a_small_body_with_the_head_and_expects_100_continue_for_a_large_one() {
    let (seen, _) = played("curl", &["early-answer"]).await;
    for one in of_size(&seen, 22).chain(of_size(&seen, 60_000)) {
        assert_eq!(one.with_head, one.body_bytes, "{one:?}");
        assert!(!one.head.contains("Expect:"), "{one:?}");
    }
    for one in seen.iter().filter(|one| one.body_bytes > 1024 * 1024) {
        assert_contains(&one.head, &["Expect: 100-continue\r\n"]);
        assert_eq!(one.with_head, 0, "{one:?}");
    }
    assert!(seen.iter().any(|one| one.body_bytes > 1024 * 1024));
}

#[tokio::test]
async fn a_given_body_is_sent_as_the_client_writes() {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let peer = Peer::start(move |stream, _| serve(stream, sender.clone())).await;
    let args = ["--as=haproxy", "--data={\"a\": 1}", "--skip", "body-large"];
    let output = check(&peer, &args).await;
    assert!(output.stderr.is_empty(), "{output:?}");
    peer.finish().await;
    let first = receiver.try_recv().unwrap();
    assert_eq!((first.body_bytes, first.with_head), (8, 8), "{first:?}");
}

#[tokio::test]
async fn a_client_that_nobody_knows_is_a_bad_setting() {
    let peer = Peer::silent().await;
    let output = check(&peer, &["--as=lynx"]).await;
    assert_eq!(output.status.code(), Some(2));
    let parts = ["--as=\"lynx\"; allowed: nginx, nginx-unbuffered, haproxy, "];
    assert_contains(text(&output.stderr), &parts);
    peer.finish().await;
}
