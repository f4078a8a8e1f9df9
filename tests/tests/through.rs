//! `rstlab check --through`: an early answer behind rstlab-proxy, and behind a proxy that gives up.

// Helpers of tests, outside of #[test].
#![allow(clippy::unwrap_used)]

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Output;
use std::thread;

use rstlab_tests::{InTime as _, assert_contains, content_length, proxy, rstlab, text};

/// A port that nobody listens on at this moment.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

fn through(proxy: SocketAddr, upstream: SocketAddr, more: &[&str]) -> Output {
    rstlab(&["check", "--through", &format!("http://{proxy}/upload")])
        .args(["--upstream-listen", &upstream.to_string()])
        .args(more)
        .output_in_time()
}

/// The rows of the table: body, clients, and how many of them got the answer.
fn rows(output: &Output) -> Vec<(String, u64, u64)> {
    let lines = text(&output.stdout)
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    lines
        .filter_map(|words| match words[..] {
            [bytes, "B", clients, answered, ..] => Some((
                bytes.to_owned(),
                clients.parse().ok()?,
                answered.parse().ok()?,
            )),
            _ => None,
        })
        .collect()
}

#[test]
fn every_client_of_our_proxy_gets_the_answer() {
    let upstream = free_address();
    let proxy = proxy(upstream, &[("PROXY_MAX_BODY", "0"), ("LOG", "info")]);
    let output = through(proxy.address, upstream, &[]);
    let expected =
        ["22", "100,000", "1,000,000", "5,000,000"].map(|bytes| (bytes.to_owned(), 100, 100));
    assert_eq!(rows(&output), expected, "{output:?}");
    assert_eq!(output.status.code(), Some(0));
}

/// A proxy that passes the whole request on before it reads the answer, and gives up when a write fails.
fn hasty_proxy(upstream: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || pass_on(client, upstream));
        }
    });
    address
}

fn pass_on(mut client: TcpStream, upstream: SocketAddr) -> io::Result<()> {
    let mut server = TcpStream::connect(upstream)?;
    let mut buf = [0; 4096];
    let mut request = Vec::new();
    let mut left = loop {
        let bytes = client.read(&mut buf)?;
        if bytes == 0 {
            return Ok(());
        }
        request.extend_from_slice(&buf[..bytes]);
        if let Some(end) = request.windows(4).position(|four| four == b"\r\n\r\n") {
            break content_length(text(&request[..end])) - (request.len() - end - 4);
        }
    };
    server.write_all(&request)?;
    while left > 0 {
        let bytes = client.read(&mut buf)?;
        server.write_all(&buf[..bytes])?;
        left -= bytes;
    }
    io::copy(&mut server, &mut client)?;
    Ok(())
}

#[test]
fn a_proxy_that_gives_up_on_a_failed_write_loses_answers() {
    let upstream = free_address();
    let proxy = hasty_proxy(upstream);
    let output = through(proxy, upstream, &["--trials=20", "--body-sizes=0,5000000"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let rows = rows(&output);
    assert_eq!(rows[0], ("0".to_owned(), 20, 20), "{rows:?}");
    assert!(rows[1].2 < 20, "{rows:?}");
}

#[test]
fn a_proxy_that_forwards_to_nobody_is_named() {
    let proxy = proxy(free_address(), &[]);
    let output = through(proxy.address, free_address(), &[]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let parts = ["gets 502 of ", "Is it the proxy's upstream?"];
    assert_contains(text(&output.stderr), &parts);
}
