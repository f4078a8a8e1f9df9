//! A blocking client that counts the bytes of a response and says how the response ended.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::{LIMIT, head_field};

/// A response, as a client that reads to the end got it.
#[derive(Debug)]
pub struct Reply {
    /// The status; `None` if not even the head came whole.
    pub status: Option<u16>,
    /// Length of the body as the head announced it.
    pub expected_bytes: Option<u64>,
    /// Length of the body that came.
    pub body_bytes: u64,
    /// A FIN, or the error of the last read.
    pub end: io::Result<()>,
}

impl Reply {
    /// Whether the head and every announced byte of the body came.
    pub fn is_whole(&self) -> bool {
        self.status.is_some() && self.expected_bytes == Some(self.body_bytes)
    }
}

/// Connects without Nagle's delay, with every wait limited.
///
/// # Errors
/// Nobody listens there.
pub fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    Ok(stream)
}

/// The head of a POST with a body of `length` bytes; the connection ends after the response.
pub fn post_head(path: &str, length: u64) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
    )
}

/// Sends `request` and reads the response to its end, also if sending fails.
///
/// # Errors
/// Nobody listens there.
pub fn exchange(address: SocketAddr, request: &[u8]) -> io::Result<Reply> {
    let mut stream = connect(address)?;
    // If sending fails, the server's answer may be in the receive queue all the same.
    let _ = stream.write_all(request);
    Ok(read_reply(&mut stream))
}

/// Reads a response until the connection ends.
pub fn read_reply(stream: &mut impl Read) -> Reply {
    let mut head = Vec::new();
    let mut body_bytes = 0;
    let mut buf = vec![0; 64 * 1024];
    let mut in_body = false;
    let end = loop {
        match stream.read(&mut buf) {
            Ok(0) => break Ok(()),
            Ok(bytes) if in_body => body_bytes += bytes as u64,
            Ok(bytes) => {
                head.extend_from_slice(&buf[..bytes]);
                if let Some(at) = head.windows(4).position(|four| four == b"\r\n\r\n") {
                    in_body = true;
                    body_bytes = (head.len() - at - 4) as u64;
                    head.truncate(at);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break Err(error),
        }
    };
    let head = if in_body {
        String::from_utf8_lossy(&head)
    } else {
        "".into()
    };
    Reply {
        status: head.get(9..12).and_then(|status| status.parse().ok()),
        expected_bytes: head_field(&head, "content-length").and_then(|value| value.parse().ok()),
        body_bytes,
        end,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_whole_only_with_its_last_byte() {
        let read = |text: &str| read_reply(&mut text.as_bytes());
        let reply = read("HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nabc");
        assert_eq!(reply.status, Some(413));
        assert!(reply.is_whole());
        assert!(!read("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab").is_whole());
        assert!(!read("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n").is_whole());
        assert!(!read("").is_whole());
    }
}
