//! What the client gets of a response, byte for byte.

use std::sync::Arc;

use rstlab_tests::{Answer, Peer, read_head, read_to_end};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::notation::{TableRow, rows};
use crate::support::Proxy;

/// The upstream's answer to the second request of each connection.
const NEXT: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext";

/// The abbreviations of the table.
const WORDS: &[(&str, &str)] = &[
    (
        "{next}",
        "HTTP/1.1 200 OK¶content-length: 4¶connection: close¶¶next",
    ),
    (
        "{502}",
        "HTTP/1.1 502 Bad Gateway¶content-type: text/plain; charset=utf-8¶connection: close¶content-length: 54¶¶\
         502 Bad Gateway: the upstream's response is malformed\\n",
    ),
];

/// Lets the upstream answer a request with the row's bytes, and the request behind it with [`NEXT`].
async fn exchange(row: &TableRow) -> Answer {
    let response: Arc<[u8]> = row.sent.as_slice().into();
    let upstream = Peer::start(move |mut stream, _| {
        let response = Arc::clone(&response);
        async move {
            let head = read_head(&mut stream).await;
            let is_next = head.contains(" /next ");
            let answer = if is_next { NEXT } else { &response };
            // Both fail if the proxy has refused the beginning and ended the connection.
            let _ = stream.write_all(answer).await;
            let _ = stream.shutdown().await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    })
    .await;
    let proxy = Proxy::in_front_of(&upstream).await;
    let mut client = proxy.connect().await;
    let (request, _) = row.name.split_once(' ').unwrap();
    let (method, version) = request.split_once('/').unwrap_or((request, "1.1"));
    let requests = format!(
        "{method} / HTTP/{version}\r\nHost: h\r\nTE: trailers\r\nConnection: TE\r\n\r\n\
         GET /next HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
    );
    client.write_all(requests.as_bytes()).await.unwrap();
    let answer = read_to_end(&mut client).await;
    drop(client);
    proxy.stop().await;
    upstream.finish().await;
    answer
}

/// The bytes of an answer, escaped, without the Date fields that hyper adds, and the error at the end.
fn text(answer: &Answer) -> String {
    let text = answer.bytes.escape_ascii().to_string();
    let mut parts = text.split("date: ");
    let first = parts.next().unwrap_or_default().to_owned();
    let text = parts.fold(first, |text, part| {
        text + part.split_once("GMT\\r\\n").unwrap().1
    });
    match &answer.end {
        Ok(()) => text,
        Err(error) => format!("{text} {}", error.kind()),
    }
}

#[tokio::test]
async fn each_response_is_relayed_or_refused_as_the_table_says() {
    let table = rows(include_str!("responses.txt"), WORDS);
    let mut wrong = String::new();
    for row in &table {
        let got = text(&exchange(row).await);
        let expected = row.arrows.concat().escape_ascii().to_string();
        if got != expected {
            wrong += &format!("\n{}:\n   {got}\n   {expected}", row.name);
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(table.len() >= 30, "{} rows", table.len());
}
