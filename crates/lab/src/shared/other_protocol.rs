//! Finds out whether a port speaks TLS or HTTP/2 in place of HTTP/1.1.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rstlab_wire::{Direction, Malformed, MessagePart, Messages};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::target::Target;

/// A ClientHello of TLS 1.2 with two cipher suites (RFC 5246 §7.4.1.2), in a record of its own. Then comes the end of a
/// request, for a server that takes the ClientHello for one; to a TLS server it is less than a record's head.
pub(crate) const TLS_HELLO: &[u8] =
    b"\x16\x03\x01\x00\x2f\x01\x00\x00\x2b\x03\x03rstlab asks whether this is TLS.\
    \x00\x00\x04\xc0\x2b\xc0\x2f\x01\x00\r\n\r\n";

/// The protocol of a server that answers a plain request with 400, with no HTTP/1.1, or not at all; `None` if the protocol is neither
/// TLS nor HTTP/2, or nothing was answered within the limit.
pub(crate) async fn other_protocol(
    target: &Target<SocketAddr>,
    limit: Duration,
) -> Option<&'static str> {
    let Target { host, path, .. } = target;
    let plain = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    for question in [plain.as_bytes(), TLS_HELLO] {
        let answer = timeout(limit, not_http(target.address, question)).await;
        if let Ok(Ok(Some(bad))) = answer {
            let bad = bad.to_string();
            let mut protocols = [Malformed::TLS, Malformed::HTTP2].into_iter();
            return protocols.find(|protocol| bad == *protocol);
        }
    }
    None
}

/// Why the answer to these bytes is no HTTP/1.1; `None` if a response's head comes, or the connection ends before.
async fn not_http(address: SocketAddr, question: &[u8]) -> io::Result<Option<Malformed>> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(question).await?;
    let mut messages = Messages::new(Direction::Responses { to_head: false });
    let mut buf = [0; 4096];
    loop {
        let read = stream.read(&mut buf).await?;
        let mut bytes = &buf[..read];
        if bytes.is_empty() {
            return Ok(None);
        }
        while !bytes.is_empty() {
            match messages.step(bytes) {
                Ok(step) if matches!(step.part, MessagePart::Head(_)) => return Ok(None),
                Ok(step) => bytes = &bytes[step.bytes..],
                Err(bad) => return Ok(Some(bad)),
            }
        }
    }
}
