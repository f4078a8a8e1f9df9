//! The memory of the programs does not grow with the size of a body. Takes half a minute or more:
//! `cargo test -p rstlab-tests --features long --test memory`.

#![cfg(feature = "long")]

use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use rstlab_tests::{connect, post_head, proxy, read_reply, upstream};

/// The longest time for the whole body on a slow machine.
const UPLOAD_LIMIT: Duration = Duration::from_secs(600);

const BODY_BYTES: u64 = 10_000_000_000;

const MIB: u64 = 1024 * 1024;

/// Sends `left` zeroes.
fn send_zeroes(mut stream: &TcpStream, mut left: u64) {
    static ZEROES: [u8; 256 * 1024] = [0; 256 * 1024];
    while left > 0 {
        let piece = left.min(ZEROES.len() as u64);
        stream
            .write_all(&ZEROES[..piece as usize])
            .expect("the proxy takes them");
        left -= piece;
    }
}

#[test]
fn a_body_of_any_size_passes_within_the_bounds_of_memory() {
    let mut upstream = upstream(&[("UPSTREAM_MODE", "drain")]);
    let proxy = proxy(upstream.address, &[("PROXY_MAX_BODY", "0")]);

    let start = Instant::now();
    let mut stream = connect(proxy.address).unwrap();
    stream
        .write_all(post_head("/", BODY_BYTES).as_bytes())
        .unwrap();
    let reply = thread::scope(|scope| {
        let sender = stream.try_clone().unwrap();
        scope.spawn(move || send_zeroes(&sender, BODY_BYTES));
        // The answer comes after the last byte.
        stream.set_read_timeout(Some(UPLOAD_LIMIT)).unwrap();
        read_reply(&mut stream)
    });
    assert!(reply.is_whole() && reply.status == Some(200), "{reply:?}");
    let read = upstream.wait_for(" closed ");
    assert!(read.contains(&format!("body_bytes={BODY_BYTES}")), "{read}");

    let (proxy_peak, upstream_peak) = (proxy.peak_memory_bytes(), upstream.peak_memory_bytes());
    eprintln!(
        "{BODY_BYTES} bytes in {:.1?}: the proxy held {:.1} MiB at most, the upstream {:.1} MiB",
        start.elapsed(),
        proxy_peak as f64 / MIB as f64,
        upstream_peak as f64 / MIB as f64,
    );
    assert!(upstream_peak < 32 * MIB);
    assert!(proxy_peak < 64 * MIB);
}
