//! What the proxy answers to a request, and what reaches the upstream, byte for byte.

use std::sync::{Arc, Mutex, PoisonError};

use rstlab_proxy::{ProxyConfig, Writes};
use rstlab_tests::{Answer, Peer, read_to_end, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::notation::{TableRow, rows};
use crate::support::{Proxy, config};

/// Sent behind each request of the table, in the same connection.
const NEXT: &[u8] = b"GET /next HTTP/1.1\r\nHost: next\r\nConnection: close\r\n\r\n";

/// The abbreviations of the table; `{proxy}` stands for the fields that the proxy adds.
const WORDS: &[(&str, &str)] = &[
    ("{next}", "GET /next HTTP/1.1¶host: next¶{proxy}¶"),
    ("{chunked}", "{proxy}transfer-encoding: chunked¶¶"),
    ("{proxy}", "via: 1.1 {forwarded}"),
    ("{proxy1.0}", "via: 1.0 {forwarded}"),
    (
        "{forwarded}",
        "rstlab-proxy¶x-forwarded-for: 127.0.0.1¶x-forwarded-proto: http¶connection: close¶",
    ),
];

/// The bytes of each connection to the upstream, escaped, in the order of the connections.
type Reached = Vec<String>;

/// Sends a row's request and [`NEXT`] in pieces of about so many bytes; returns the proxy's answers, and what reached the
/// upstream.
async fn exchange(row: &TableRow, writes: Writes, piece: usize) -> (Answer, Reached) {
    let reached: Arc<Mutex<Reached>> = Arc::default();
    let recorded = Arc::clone(&reached);
    let expected: Vec<usize> = row.arrows.iter().map(Vec::len).collect();
    let upstream = Peer::start(move |mut stream, number| {
        let reached = Arc::clone(&recorded);
        let length = expected.get(number).copied().unwrap_or(0);
        async move {
            let mut bytes = Vec::new();
            while bytes.len() < length && stream.read_buf(&mut bytes).await.unwrap_or(0) > 0 {}
            let body: &[u8] = if bytes.starts_with(b"HEAD") {
                b""
            } else {
                b"ok"
            };
            let answer = [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", body].concat();
            // Fails if the proxy has ended the connection.
            let _ = stream.write_all(&answer).await;
            let _ = stream.shutdown().await;
            let _ = stream.read_to_end(&mut bytes).await;
            let mut reached = reached.lock().unwrap_or_else(PoisonError::into_inner);
            let places = reached.len().max(number + 1);
            reached.resize(places, String::new());
            reached[number] = bytes.escape_ascii().to_string();
        }
    })
    .await;
    let proxy = Proxy::start(ProxyConfig {
        writes,
        ..config(&upstream)
    })
    .await;

    let stream = proxy.connect().await;
    stream.set_nodelay(true).unwrap();
    let (mut read, mut write) = stream.into_split();
    // A refusal waits for no more bytes.
    let next = if piece == 1 && row.expected == ["400"] {
        b""
    } else {
        NEXT
    };
    let sent = [&row.sent, next].concat();
    let sending = tokio::spawn(async move {
        for piece in sent.chunks(piece.max(sent.len() / 500)) {
            // Fails if the proxy has refused the beginning.
            if write.write_all(piece).await.is_err() {
                break;
            }
        }
        write
    });
    let answer = read_to_end(&mut read).await;
    drop((soon(sending).await.unwrap(), read));
    proxy.stop().await;
    let address = upstream.address.to_string();
    upstream.finish().await;
    let reached = reached.lock().unwrap_or_else(PoisonError::into_inner);
    let reached = reached
        .iter()
        .map(|request| request.replace(&address, "UPSTREAM"));
    (answer, reached.collect())
}

fn statuses(answer: &Answer) -> Vec<String> {
    let text = answer.text();
    let answers = text.split("HTTP/1.").skip(1);
    answers.map(|answer| answer[2..5].to_owned()).collect()
}

/// Whether `reached` is what the row says. Of a request whose body turns out to be malformed the proxy may have sent
/// the beginning already.
fn is_as_expected(row: &TableRow, reached: &[String]) -> bool {
    let all: Vec<String> = row
        .arrows
        .iter()
        .map(|bytes| bytes.escape_ascii().to_string())
        .collect();
    match (row.expected[0].as_str(), reached, &all[..]) {
        ("400", [], _) => true,
        ("400", [some], [all]) => all.starts_with(some),
        _ => reached == all,
    }
}

async fn all_rows(writes: Writes, piece: usize) {
    let table = rows(include_str!("requests.txt"), WORDS);
    assert!(table.len() >= 120, "{} rows", table.len());
    let mut wrong = String::new();
    for row in &table {
        let (answer, reached) = exchange(row, writes, piece).await;
        let statuses = statuses(&answer);
        if statuses != row.expected || answer.end.is_err() || !is_as_expected(row, &reached) {
            wrong += &format!("\n{}: {statuses:?} {:?} {reached:#?}", row.name, answer.end);
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[tokio::test]
async fn each_request_is_forwarded_or_refused_as_the_table_says() {
    all_rows(Writes::Split, usize::MAX).await;
}

#[tokio::test]
async fn each_request_is_read_alike_byte_by_byte() {
    all_rows(Writes::Joined, 1).await;
}
