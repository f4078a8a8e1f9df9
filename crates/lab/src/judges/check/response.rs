//! Counts the responses of a connection that is judged: which came whole, how many bytes, how each would end.

use rstlab_wire::{BodyFraming, Direction, Malformed, MessageHead, MessagePart, Messages};

/// The error in place of a head that is a TLS record.
pub(super) const TLS: &str = Malformed::TLS;

/// Bytes of a body that are kept, to tell a cut response from another one.
const BEGINNING: usize = 1024;

/// Follows the responses on a connection and counts their bytes; of the bodies it keeps the beginning only.
#[derive(Debug)]
pub(super) struct Responses {
    messages: Messages,
    read_bytes: u64,
    current: Option<Response>,
    whole: Vec<Response>,
    beginning: Vec<u8>,
    /// The bytes up to the end of the first response's head; an interim response's head is before it.
    head: Vec<u8>,
}

/// What is known of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Response {
    pub(super) status: u16,
    /// `Content-Length`.
    pub(super) announced: Option<u64>,
    pub(super) body_bytes: u64,
    /// The server says that no other response follows on this connection (RFC 9112 §9.3).
    pub(super) is_last: bool,
    /// Only the end of the stream ends it (RFC 9112 §6.3): nobody can tell a cut one from a whole one.
    pub(super) until_end: bool,
    /// Bytes of the stream up to its end.
    pub(super) end: u64,
}

impl Response {
    fn new(head: &MessageHead) -> Self {
        Self {
            status: head.status,
            announced: match head.body {
                BodyFraming::Length(bytes) => Some(bytes),
                BodyFraming::None | BodyFraming::Chunked | BodyFraming::UntilEnd => None,
            },
            body_bytes: 0,
            is_last: head.is_last,
            until_end: head.body == BodyFraming::UntilEnd,
            end: 0,
        }
    }
}

impl Responses {
    pub(super) fn new(to_head: bool) -> Self {
        Self {
            messages: Messages::new(Direction::Responses { to_head }),
            read_bytes: 0,
            current: None,
            whole: Vec::new(),
            beginning: Vec::new(),
            head: Vec::new(),
        }
    }

    /// The value of a field of the first response's head, the name in any case; of several fields the last one's.
    pub(super) fn field(&self, name: &str) -> Option<String> {
        let head = String::from_utf8_lossy(&self.head);
        let fields = head.lines().filter_map(|line| line.split_once(':'));
        let mut values = fields.filter(|(field, _)| field.eq_ignore_ascii_case(name));
        values.next_back().map(|(_, value)| value.trim().to_owned())
    }

    /// The first bytes of the bodies.
    pub(super) fn beginning(&self) -> &[u8] {
        &self.beginning
    }

    /// Responses that came to their end.
    pub(super) fn whole(&self) -> &[Response] {
        &self.whole
    }

    /// The response whose head has come, but not its end.
    pub(super) fn current(&self) -> Option<&Response> {
        self.current.as_ref()
    }

    /// Bytes of the stream so far.
    pub(super) fn read_bytes(&self) -> u64 {
        self.read_bytes
    }

    /// The end of the stream, a FIN.
    pub(super) fn end(&mut self) {
        if self.messages.ends_with_stream() {
            self.finish();
        }
    }

    /// Looks at the next bytes, up to the end of response number `last`; returns how many follow it.
    ///
    /// # Errors
    /// They are not HTTP/1; the text says what they look like.
    pub(super) fn feed(&mut self, mut bytes: &[u8], last: usize) -> Result<usize, String> {
        while !bytes.is_empty() && self.whole.len() < last {
            let step = self
                .messages
                .step(bytes)
                .map_err(|error| error.to_string())?;
            let (used, rest) = bytes.split_at(step.bytes);
            bytes = rest;
            self.read_bytes += used.len() as u64;
            if self.whole.is_empty() && self.current.is_none() {
                self.head.extend_from_slice(used);
            }
            match step.part {
                MessagePart::Framing => {}
                MessagePart::Head(head) => self.current = Some(Response::new(&head)),
                MessagePart::Body => self.count(used),
            }
            if step.ends {
                self.finish();
            }
        }
        Ok(bytes.len())
    }

    fn count(&mut self, bytes: &[u8]) {
        if let Some(current) = &mut self.current {
            current.body_bytes += bytes.len() as u64;
        }
        let room = BEGINNING - self.beginning.len();
        self.beginning
            .extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn finish(&mut self) {
        if let Some(mut response) = self.current.take() {
            response.end = self.read_bytes;
            self.whole.push(response);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The responses, read in pieces of every size.
    fn read(bytes: &[u8], most: usize) -> Result<(Vec<Response>, Option<Response>), String> {
        let mut results = Vec::new();
        for size in 1..=bytes.len() {
            let mut responses = Responses::new(false);
            let mut result = Ok(0);
            for piece in bytes.chunks(size) {
                result = result.and_then(|_| responses.feed(piece, most));
            }
            responses.end();
            results.push(result.map(|_| (responses.whole, responses.current)));
        }
        let first = results.pop().unwrap();
        for other in results {
            match (&first, other) {
                (Ok(first), other) => assert_eq!(Ok(first), other.as_ref()),
                (Err(_), other) => assert!(other.is_err()),
            }
        }
        first
    }

    #[test]
    fn a_length_chunks_and_the_end_of_the_stream_end_a_body() {
        let (whole, rest) = read(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n12345", 1).unwrap();
        assert_eq!(
            (whole[0].body_bytes, whole[0].announced, whole[0].is_last),
            (5, Some(5), false)
        );
        assert_eq!((whole[0].end, rest), (43, None));

        let chunked = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n\
            3;a=b\r\n123\r\nA\r\n1234567890\r\n0\r\nTrailer: x\r\n\r\n";
        let (whole, _) = read(chunked, 1).unwrap();
        assert_eq!(
            (whole[0].body_bytes, whole[0].announced, whole[0].is_last),
            (13, None, true)
        );
        for cut in 60..chunked.len() {
            assert!(read(&chunked[..cut], 1).unwrap().0.is_empty(), "{cut}");
        }

        let (whole, _) = read(b"HTTP/1.0 200 OK\r\n\r\n12345", 1).unwrap();
        assert_eq!((whole[0].body_bytes, whole[0].until_end), (5, true));
    }

    #[test]
    fn a_field_of_the_first_response_is_found_in_any_case() {
        let mut responses = Responses::new(false);
        let bytes = b"HTTP/1.1 100 Continue\r\nA: 0\r\n\r\nHTTP/1.1 302 Found\r\nLOCATION:  /a:b \r\nContent-Length: 4\r\n\r\nB: 2";
        for byte in bytes {
            responses.feed(&[*byte], 1).unwrap();
        }
        assert_eq!(responses.field("Location").as_deref(), Some("/a:b"));
        assert_eq!(responses.field("B"), None);
    }

    #[test]
    fn a_second_response_follows_a_first_one() {
        let bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1HTTP/1.1 204 No\r\n\r\n";
        let (whole, _) = read(bytes, 2).unwrap();
        assert_eq!(
            whole.iter().map(|one| one.status).collect::<Vec<_>>(),
            [200, 204]
        );
        assert_eq!(read(bytes, 1).unwrap().0.len(), 1);
    }

    #[test]
    fn bytes_that_are_not_http_are_named() {
        assert!(
            read(b"\x15\x03\x01\x00\x02\x02\x46", 1)
                .unwrap_err()
                .starts_with("TLS")
        );
        assert!(read(b"SSH-2.0-x\r\n", 1).unwrap_err().contains("SSH"));
        let fields = |count| format!("HTTP/1.1 204 No\r\n{}\r\n", "A: b\r\n".repeat(count));
        assert!(read(fields(128).as_bytes(), 1).is_ok());
        assert_eq!(
            read(fields(129).as_bytes(), 1).unwrap_err(),
            "HTTP/1 with more than 128 header fields, and rstlab reads no more"
        );
        assert!(read(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", 1).is_err());
        assert!(
            read(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
                1
            )
            .is_err()
        );
    }
}
