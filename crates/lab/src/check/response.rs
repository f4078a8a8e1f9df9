use httparse::Status;

/// Longest head, and longest line of chunk framing.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// Most fields of a head.
const MAX_FIELDS: usize = 128;

/// What is said of a TLS record in place of a head.
pub(super) const TLS: &str = "TLS: the port speaks https";

/// Bytes of a body that are kept, to tell a cut response from another one.
const BEGINNING: usize = 1024;

/// Most interim responses before a final one.
const MAX_INTERIM: usize = 100;

/// Follows the responses on a connection and counts their bytes; of the bodies it keeps the beginning only.
#[derive(Debug)]
pub(super) struct Responses {
    head_only: bool,
    at: At,
    /// A head or a line of chunk framing that is not complete.
    part: Vec<u8>,
    interim: usize,
    read_bytes: u64,
    current: Option<Response>,
    whole: Vec<Response>,
    beginning: Vec<u8>,
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Head,
    Sized { left: u64 },
    ChunkSize,
    ChunkData { left: u64 },
    ChunkEnd,
    Trailer,
    UntilEnd,
}

impl Responses {
    pub(super) fn new(head_only: bool) -> Self {
        Self {
            head_only,
            at: At::Head,
            part: Vec::new(),
            interim: 0,
            read_bytes: 0,
            current: None,
            whole: Vec::new(),
            beginning: Vec::new(),
        }
    }

    /// The first bytes of the bodies.
    pub(super) fn beginning(&self) -> &[u8] {
        &self.beginning
    }

    /// Responses that came to their end.
    pub(super) fn whole(&self) -> &[Response] {
        &self.whole
    }

    /// The one whose head has come, and not its end.
    pub(super) fn current(&self) -> Option<&Response> {
        self.current.as_ref()
    }

    /// Bytes of the stream so far.
    pub(super) fn read_bytes(&self) -> u64 {
        self.read_bytes
    }

    /// The end of the stream, a FIN.
    pub(super) fn end(&mut self) {
        if self.at == At::UntilEnd {
            self.finish();
        }
    }

    /// Looks at the next bytes, up to the end of response number `most`; returns how many follow it.
    ///
    /// # Errors
    /// They are not HTTP/1; the text says what they look like.
    pub(super) fn feed(&mut self, mut bytes: &[u8], most: usize) -> Result<usize, String> {
        while !bytes.is_empty() && self.whole.len() < most {
            let used = self.step(bytes)?;
            self.read_bytes += used as u64;
            bytes = &bytes[used..];
            if matches!(self.at, At::Sized { left: 0 }) {
                self.finish();
            }
        }
        Ok(bytes.len())
    }

    fn step(&mut self, bytes: &[u8]) -> Result<usize, String> {
        match &mut self.at {
            At::Head => self.head(bytes),
            At::Sized { left } | At::ChunkData { left } => {
                let used = bytes
                    .len()
                    .min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= used as u64;
                if matches!(self.at, At::ChunkData { left: 0 }) {
                    self.at = At::ChunkEnd;
                }
                self.count(&bytes[..used]);
                Ok(used)
            }
            At::UntilEnd => {
                self.count(bytes);
                Ok(bytes.len())
            }
            At::ChunkSize | At::ChunkEnd | At::Trailer => self.line(bytes),
        }
    }

    fn count(&mut self, bytes: &[u8]) {
        if let Some(current) = &mut self.current {
            current.body_bytes += bytes.len() as u64;
        }
        let room = BEGINNING - self.beginning.len();
        self.beginning
            .extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn head(&mut self, bytes: &[u8]) -> Result<usize, String> {
        let before = self.part.len();
        self.part.extend_from_slice(bytes);
        match self.part[..] {
            // The beginning of a TLS record: an alert, or a handshake (RFC 8446 §5.1). HTTP begins with a letter.
            [0x15 | 0x16] => return Ok(bytes.len()),
            [0x15 | 0x16, 3, ..] => return Err(TLS.to_owned()),
            _ => {}
        }
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut head = httparse::Response::new(&mut fields);
        let length = match head.parse(&self.part) {
            Ok(Status::Complete(length)) => length,
            Ok(Status::Partial) if self.part.len() <= MAX_HEAD_BYTES => return Ok(bytes.len()),
            Ok(Status::Partial) => return Err("a head of more than 64 KiB".to_owned()),
            Err(httparse::Error::TooManyHeaders) => {
                return Err(format!(
                    "HTTP/1 with more than {MAX_FIELDS} header fields, and rstlab reads no more"
                ));
            }
            Err(error) => return Err(format!("not HTTP/1 ({error}): {}", beginning(&self.part))),
        };
        let status = head.code.unwrap_or_default();
        if (100..200).contains(&status) && status != 101 {
            self.interim += 1;
            if self.interim > MAX_INTERIM {
                return Err(format!("more than {MAX_INTERIM} interim responses"));
            }
        } else {
            self.begin(
                status,
                head.version == Some(0),
                &Fields::read(head.headers)?,
            );
        }
        self.part.clear();
        Ok(length - before)
    }

    fn begin(&mut self, status: u16, version_1_0: bool, fields: &Fields) {
        let empty = self.head_only || matches!(status, 101 | 204 | 304);
        self.at = match fields.length {
            _ if empty => At::Sized { left: 0 },
            _ if fields.chunked => At::ChunkSize,
            Some(left) => At::Sized { left },
            None => At::UntilEnd,
        };
        let until_end = self.at == At::UntilEnd;
        self.interim = 0;
        self.current = Some(Response {
            status,
            announced: fields.length.filter(|_| !empty && !fields.chunked),
            body_bytes: 0,
            is_last: fields.close || until_end || (version_1_0 && !fields.keep_alive),
            until_end,
            end: 0,
        });
    }

    /// A line of chunk framing (RFC 9112 §7.1).
    fn line(&mut self, bytes: &[u8]) -> Result<usize, String> {
        let used = bytes.iter().position(|byte| *byte == b'\n');
        let used = used.map_or(bytes.len(), |at| at + 1);
        self.part.extend_from_slice(&bytes[..used]);
        if self.part.len() > MAX_HEAD_BYTES {
            return Err("a line of chunk framing of more than 64 KiB".to_owned());
        }
        if !self.part.ends_with(b"\n") {
            return Ok(used);
        }
        let is_empty = self.part.iter().all(|byte| matches!(byte, b'\r' | b'\n'));
        match self.at {
            At::ChunkSize => match httparse::parse_chunk_size(&self.part) {
                Ok(Status::Complete((_, 0))) => self.at = At::Trailer,
                Ok(Status::Complete((_, left))) => self.at = At::ChunkData { left },
                _ => return Err(format!("a bad chunk size: {}", beginning(&self.part))),
            },
            At::ChunkEnd if is_empty => self.at = At::ChunkSize,
            At::ChunkEnd => return Err("a chunk longer than its size".to_owned()),
            _ if is_empty => self.at = At::Sized { left: 0 },
            _ => {}
        }
        self.part.clear();
        Ok(used)
    }

    fn finish(&mut self) {
        self.at = At::Head;
        if let Some(mut response) = self.current.take() {
            response.end = self.read_bytes;
            self.whole.push(response);
        }
    }
}

/// The fields that say how long a response is and whether another may follow.
#[derive(Debug, Default)]
struct Fields {
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
}

impl Fields {
    fn read(headers: &[httparse::Header<'_>]) -> Result<Self, String> {
        let mut fields = Self::default();
        for header in headers {
            let value = String::from_utf8_lossy(header.value);
            let has = |option: &str| {
                value
                    .split(',')
                    .any(|one| one.trim().eq_ignore_ascii_case(option))
            };
            if header.name.eq_ignore_ascii_case("content-length") {
                let length = value.trim().parse();
                let length = length.map_err(|_| "a Content-Length that is no number".to_owned())?;
                fields.length = Some(length);
            } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
                fields.chunked |= has("chunked");
            } else if header.name.eq_ignore_ascii_case("connection") {
                fields.close |= has("close");
                fields.keep_alive |= has("keep-alive");
            }
        }
        Ok(fields)
    }
}

/// The first bytes of something, fit for a terminal.
fn beginning(bytes: &[u8]) -> String {
    format!("\"{}\"", bytes[..bytes.len().min(24)].escape_ascii())
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
    fn what_is_not_http_is_named() {
        assert!(
            read(b"\x15\x03\x01\x00\x02\x02\x46", 1)
                .unwrap_err()
                .starts_with("TLS")
        );
        assert!(read(b"SSH-2.0-x\r\n", 1).unwrap_err().contains("SSH"));
        let fields = |count| format!("HTTP/1.1 204 No\r\n{}\r\n", "A: b\r\n".repeat(count));
        assert!(read(fields(MAX_FIELDS).as_bytes(), 1).is_ok());
        assert_eq!(
            read(fields(MAX_FIELDS + 1).as_bytes(), 1).unwrap_err(),
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
