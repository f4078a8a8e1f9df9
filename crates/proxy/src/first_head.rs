//! Waits for a client's first request head in no more memory than the head takes.

use std::time::Duration;

use rstlab_wire::{HeadEnd, MAX_HEAD_BYTES, is_beginning_of_request};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Limit of one `recv(2)`: most requests without a large body fit.
const RECV_BYTES: usize = 4096;

/// Reads until hyper has something to do: a head is whole, the bytes cannot become a head, the stream ends, or the
/// proxy stops. Returns the bytes that came; `None` if none of that happens within `limit`.
///
/// hyper's connection takes 20 KiB and more from its first poll on. A client that sends nothing, or its head byte by
/// byte, is not worth that.
pub(crate) async fn first_head(
    stream: &TcpStream,
    limit: Duration,
    stop: &CancellationToken,
) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    let reading = timeout(limit, stop.run_until_cancelled(read(stream, &mut head)));
    let in_time = reading.await.is_ok();
    in_time.then_some(head)
}

async fn read(stream: &TcpStream, head: &mut Vec<u8>) {
    let mut head_end = HeadEnd::default();
    let mut parsed = 0;
    while stream.readable().await.is_ok() {
        let before = head.len();
        match recv(stream, head) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(_) | Ok(0) => return,
            Ok(_) => {}
        }
        if head_end.feed(&head[before..]).is_some() || head.len() > MAX_HEAD_BYTES {
            return;
        }
        // Parsed again when it has doubled: a head that comes byte by byte costs no more than others.
        if head.len() >= parsed * 2 {
            parsed = head.len();
            if !is_beginning_of_request(head) {
                return;
            }
        }
    }
}

/// Not in [`read`], whose state would hold the buffer as long as the client is silent.
fn recv(stream: &TcpStream, head: &mut Vec<u8>) -> std::io::Result<usize> {
    let mut buf = [0; RECV_BYTES];
    let bytes = stream.try_read(&mut buf)?;
    head.reserve_exact(bytes);
    head.extend_from_slice(&buf[..bytes]);
    Ok(bytes)
}
