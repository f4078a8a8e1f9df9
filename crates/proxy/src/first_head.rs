//! Waits for a client's first request head in no more memory than the head takes.

use std::time::Duration;

use rstlab_wire::{ClientSlot, HeadEnd, MAX_HEAD_BYTES, is_beginning_of_request, queues};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Limit of one `recv(2)`: most requests without a large body fit.
const RECV_BYTES: usize = 4096;

/// How the wait for the first head ended.
pub(crate) enum FirstHead {
    /// These bytes came: hyper has something to do with them, even if there are none.
    Came(Vec<u8>),
    TooSlow,
    /// Nothing came, and the client was ordered to close.
    OrderedToClose,
}

/// Reads until hyper has something to do: a head is whole, the bytes cannot become a head, the stream ends, or the
/// proxy stops. The client is idle until its first byte comes.
///
/// hyper's connection takes 20 KiB and more from its first poll on. A client that sends nothing, or its head byte by
/// byte, is not worth that.
pub(crate) async fn first_head(
    stream: &TcpStream,
    limit: Duration,
    slot: &ClientSlot,
    stop: &CancellationToken,
) -> FirstHead {
    let mut head = Vec::new();
    let reading = async {
        tokio::select! {
            biased;
            () = read(stream, &mut head, slot) => false,
            () = stop.cancelled() => false,
            () = ordered_to_close(stream, slot) => true,
        }
    };
    let ended = timeout(limit, reading).await;
    match ended {
        Ok(false) => FirstHead::Came(head),
        Ok(true) => FirstHead::OrderedToClose,
        Err(_) => FirstHead::TooSlow,
    }
}

/// Waits for an order to close that finds the client idle. A request may have come since the last read.
pub(crate) async fn ordered_to_close(stream: &TcpStream, slot: &ClientSlot) {
    loop {
        slot.ordered_to_close().await;
        if slot.is_idle() && matches!(queues::unread(stream), Ok(0)) {
            return;
        }
        slot.stays();
    }
}

async fn read(stream: &TcpStream, head: &mut Vec<u8>, slot: &ClientSlot) {
    let mut head_end = HeadEnd::default();
    let mut parsed = 0;
    slot.idle();
    while stream.readable().await.is_ok() {
        let before = head.len();
        match recv(stream, head) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(_) | Ok(0) => break,
            Ok(_) => slot.busy(),
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
    slot.busy();
}

/// Not in [`read`], whose state would hold the buffer as long as the client is silent.
fn recv(stream: &TcpStream, head: &mut Vec<u8>) -> std::io::Result<usize> {
    let mut buf = [0; RECV_BYTES];
    let bytes = stream.try_read(&mut buf)?;
    head.reserve_exact(bytes);
    head.extend_from_slice(&buf[..bytes]);
    Ok(bytes)
}
