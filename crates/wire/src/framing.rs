use crate::HeadEnd;

/// Most bytes of a request's head; the servers here set hyper's limit to the same, which answers 431.
pub const MAX_HEAD_BYTES: usize = 16 * 1024;

/// hyper's own limit, beyond which it answers 431.
const MAX_FIELDS: usize = 100;

/// Follows the framing of the requests on a connection and makes an ambiguous one malformed.
///
/// A request with both Content-Length and Transfer-Encoding may be an attempt at request smuggling
/// (RFC 9112 §6.3). hyper drops the Content-Length and goes on; programs that test others should not be
/// lenient here. Where a head has both, the last byte of its blank line is spoiled, so that hyper answers
/// 400 in the request's place in the pipeline and closes.
#[derive(Debug)]
pub struct Framing {
    at: At,
    head: Vec<u8>,
}

#[derive(Debug)]
enum At {
    Head(HeadEnd),
    Sized {
        left: u64,
    },
    Chunk(Chunk),
    /// Nothing that follows will be taken for a request: hyper refuses what came.
    Lost,
}

/// Where in a chunked body (RFC 9112 §7.1).
#[derive(Debug)]
enum Chunk {
    Size {
        size: u64,
    },
    Extension {
        size: u64,
    },
    /// Data and the line end behind it.
    Data {
        left: u64,
    },
    Trailer {
        line_is_empty: bool,
    },
}

impl Default for Framing {
    fn default() -> Self {
        Self {
            at: At::Head(HeadEnd::default()),
            head: Vec::new(),
        }
    }
}

impl Framing {
    /// What is wrong with a request that was spoiled.
    pub const AMBIGUOUS: &str =
        "a request with both Content-Length and Transfer-Encoding (RFC 9112 section 6.3)";

    /// Looks at the next bytes of the connection; returns whether an ambiguous head was spoiled.
    pub fn check(&mut self, bytes: &mut [u8]) -> bool {
        let mut from = 0;
        while from < bytes.len() {
            let rest = &mut bytes[from..];
            match &mut self.at {
                At::Head(head_end) => {
                    let end = head_end.feed(rest);
                    let part = end.unwrap_or(rest.len());
                    self.head.extend_from_slice(&rest[..part]);
                    from += part;
                    if end.is_some() {
                        let framing = body_framing(&self.head);
                        self.head = Vec::new();
                        match framing {
                            Some(next) => self.at = next,
                            None => {
                                rest[part - 1] = 0;
                                self.at = At::Lost;
                                return true;
                            }
                        }
                    } else if self.head.len() > MAX_HEAD_BYTES {
                        self.head = Vec::new();
                        self.at = At::Lost;
                    }
                }
                At::Sized { left } => {
                    let part = rest.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= part as u64;
                    from += part;
                    if *left == 0 {
                        self.at = At::Head(HeadEnd::default());
                    }
                }
                At::Chunk(chunk) => {
                    let (part, next) = chunk.step(rest);
                    from += part;
                    if let Some(next) = next {
                        self.at = next;
                    }
                }
                At::Lost => return false,
            }
        }
        false
    }
}

/// What follows a head; `None` if the head leaves it open to interpretation.
fn body_framing(head: &[u8]) -> Option<At> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    if !matches!(request.parse(head), Ok(httparse::Status::Complete(_))) {
        return Some(At::Lost);
    }
    let mut length = None;
    let mut encoded = false;
    for field in request.headers.iter() {
        if field.name.eq_ignore_ascii_case("content-length") {
            length = Some(field.value);
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            encoded = true;
        }
    }
    match (length, encoded) {
        (Some(_), true) => None,
        (None, true) => Some(At::Chunk(Chunk::Size { size: 0 })),
        (None, false) => Some(At::Head(HeadEnd::default())),
        // A length hyper does not take is answered with 400 there.
        (Some(length), false) => {
            let length = std::str::from_utf8(length)
                .ok()
                .and_then(|text| text.trim().parse().ok());
            Some(match length {
                Some(0) => At::Head(HeadEnd::default()),
                Some(left) => At::Sized { left },
                None => At::Lost,
            })
        }
    }
}

impl Chunk {
    /// Goes over some of `bytes` (not empty); returns how many and, if the body ends or breaks there, what is next.
    fn step(&mut self, bytes: &[u8]) -> (usize, Option<At>) {
        let byte = bytes[0];
        match self {
            Chunk::Size { size } => {
                if let Some(digit) = char::from(byte).to_digit(16) {
                    let Some(next) = size.checked_mul(16).map(|high| high + u64::from(digit))
                    else {
                        return (1, Some(At::Lost));
                    };
                    *size = next;
                } else if byte == b'\n' {
                    *self = Chunk::after_size(*size);
                } else if matches!(byte, b';' | b' ' | b'\t' | b'\r') {
                    *self = Chunk::Extension { size: *size };
                } else {
                    return (1, Some(At::Lost));
                }
                (1, None)
            }
            Chunk::Extension { size } => {
                if byte == b'\n' {
                    *self = Chunk::after_size(*size);
                }
                (1, None)
            }
            Chunk::Data { left } => {
                let part = bytes
                    .len()
                    .min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= part as u64;
                if *left == 0 {
                    *self = Chunk::Size { size: 0 };
                }
                (part, None)
            }
            Chunk::Trailer { line_is_empty } => {
                match byte {
                    b'\n' if *line_is_empty => return (1, Some(At::Head(HeadEnd::default()))),
                    b'\n' => *line_is_empty = true,
                    b'\r' => {}
                    _ => *line_is_empty = false,
                }
                (1, None)
            }
        }
    }

    fn after_size(size: u64) -> Self {
        if size == 0 {
            Chunk::Trailer {
                line_is_empty: true,
            }
        } else {
            Chunk::Data {
                left: size.saturating_add(2),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: &[&str] = &[
        "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n\r\n\r\n!",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n00B\r\n0123456789a\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n",
        "PUT / HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
    ];
    const AMBIGUOUS: &[&str] = &[
        "POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n",
    ];

    #[test]
    fn both_framings_in_one_head_spoil_it() {
        for head in AMBIGUOUS {
            let mut bytes = head.as_bytes().to_vec();
            assert!(Framing::default().check(&mut bytes));
            assert_eq!(bytes.last(), Some(&0));
        }
    }

    proptest! {
        #[test]
        fn it_is_found_behind_any_requests_and_in_any_pieces(
            before in proptest::collection::vec(proptest::sample::select(GOOD), 0..5),
            bad in proptest::sample::select(AMBIGUOUS),
            cuts in proptest::collection::vec(1usize..40, 1..20),
        ) {
            let good: String = before.concat();
            let mut bytes = format!("{good}{bad}").into_bytes();
            let mut framing = Framing::default();
            let mut found = Vec::new();
            let mut from = 0;
            for cut in cuts.iter().cycle() {
                let to = (from + cut).min(bytes.len());
                if framing.check(&mut bytes[from..to]) {
                    found.push(to);
                }
                from = to;
                if from == bytes.len() {
                    break;
                }
            }
            prop_assert_eq!(found, [bytes.len()]);
            prop_assert_eq!(&bytes[..good.len()], good.as_bytes(), "the others are untouched");
        }

        #[test]
        fn garbage_does_not_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), good in proptest::sample::select(GOOD)) {
            let mut framing = Framing::default();
            framing.check(&mut good.as_bytes().to_vec());
            framing.check(&mut bytes);
            Framing::default().check(&mut bytes);
        }
    }
}
