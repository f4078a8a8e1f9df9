//! Parses a message's head: how its body is framed, and whether another message may follow.

use httparse::Status;

use super::{Direction, Malformed};

/// Limit of a head's fields; a direction may have a lower one.
pub(super) const MAX_FIELDS: usize = 128;

/// Limit of a request's Content-Length: hyper takes the two numbers above it for marks, and answers 431.
const MAX_LENGTH: u64 = u64::MAX - 2;

/// How the end of a body is found (RFC 9112 §6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFraming {
    /// The message has no body.
    None,
    /// `Content-Length` announces so many bytes.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// Only the end of the stream ends it: nobody can tell a cut one from a whole one.
    UntilEnd,
}

/// The facts that a head states of its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageHead {
    /// The status of a response; 0 for a request.
    pub status: u16,
    /// How the end of the body is found.
    pub body: BodyFraming,
    /// No other message follows on this connection (RFC 9112 §9.3).
    pub is_last: bool,
}

impl MessageHead {
    /// Whether this is the head of an interim response, which comes before the final one (1xx, RFC 9110 §15.2).
    pub(super) fn is_interim(&self) -> bool {
        (100..200).contains(&self.status) && self.status != 101
    }
}

/// Parses a head; returns its length too.
pub(super) fn parse(
    bytes: &[u8],
    direction: Direction,
    max_fields: usize,
) -> Result<Status<(usize, MessageHead)>, Malformed> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let fields = &mut fields[..max_fields];
    let (result, status, version, fields) = match direction {
        Direction::Requests => {
            let mut head = httparse::Request::new(fields);
            let result = head.parse(bytes);
            // RFC 9112 §3.2: no form of a target has a fragment.
            if result.is_ok() && head.path.is_some_and(|target| target.contains('#')) {
                return Err(Malformed::new("a target with a fragment"));
            }
            (result, 0, head.version, head.headers)
        }
        Direction::Responses { .. } => {
            let mut head = httparse::Response::new(fields);
            let result = head.parse(bytes);
            (result, head.code.unwrap_or(0), head.version, head.headers)
        }
    };
    let length = match result {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) => return Ok(Status::Partial),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(Malformed::too_large(format!(
                "HTTP/1 with more than {max_fields} header fields, and rstlab reads no more"
            )));
        }
        Err(error) => return Err(Malformed::quoting(&format!("not HTTP/1 ({error})"), bytes)),
    };
    let mut head = MessageHead {
        status,
        body: BodyFraming::None,
        is_last: false,
    };
    // An interim response ends with its head.
    if !head.is_interim() {
        let fields = FramingFields::read(fields)?;
        head.body = fields.body(direction, status, version == Some(0))?;
        head.is_last = fields.close
            || head.body == BodyFraming::UntilEnd
            || (version == Some(0) && !fields.keep_alive);
    }
    Ok(Status::Complete((length, head)))
}

/// Whether bytes may be the beginning of a request's head.
pub fn is_beginning_of_request(bytes: &[u8]) -> bool {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let parsed = httparse::Request::new(&mut fields).parse(bytes);
    parsed.is_ok_and(|status| status.is_partial())
}

/// The fields that say how long a message is and whether another may follow.
#[derive(Debug, Default)]
struct FramingFields {
    /// `Content-Length`.
    length: Option<u64>,
    has_encoding: bool,
    /// The last transfer coding is chunked.
    chunked: bool,
    close: bool,
    keep_alive: bool,
}

impl FramingFields {
    fn read(headers: &[httparse::Header<'_>]) -> Result<Self, Malformed> {
        let mut fields = Self::default();
        for header in headers {
            let is = |name: &str| header.name.eq_ignore_ascii_case(name);
            let list = || {
                header
                    .value
                    .split(|byte| *byte == b',')
                    .map(<[u8]>::trim_ascii)
            };
            if is("content-length") {
                let length = length(header.value)
                    .ok_or_else(|| Malformed::new("a Content-Length that is no number"))?;
                // A recipient may also accept the same length twice (RFC 9110 §8.6); nginx does not.
                if fields.length.replace(length).is_some() {
                    return Err(Malformed::new("more than one Content-Length"));
                }
            } else if is("transfer-encoding") {
                fields.has_encoding = true;
                for coding in list() {
                    // RFC 9112 §6.1: chunked is the last coding, and there once.
                    if fields.chunked || !is_token(coding) {
                        return Err(Malformed::quoting("a bad Transfer-Encoding", header.value));
                    }
                    fields.chunked = coding.eq_ignore_ascii_case(b"chunked");
                }
            } else if is("connection") {
                for option in list() {
                    // RFC 9110 §5.6.1.2: elements may be empty.
                    if !option.is_empty() && !is_token(option) {
                        return Err(Malformed::quoting("a bad Connection", header.value));
                    }
                    fields.close |= option.eq_ignore_ascii_case(b"close");
                    fields.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
        }
        Ok(fields)
    }

    fn body(
        &self,
        direction: Direction,
        status: u16,
        is_http_1_0: bool,
    ) -> Result<BodyFraming, Malformed> {
        let is_request = direction == Direction::Requests;
        let refused = |why| Err(Malformed::new(why));
        match self.length {
            Some(_) if self.has_encoding => {
                return refused("both Content-Length and Transfer-Encoding (RFC 9112 section 6.3)");
            }
            Some(length) if is_request && length > MAX_LENGTH => {
                return refused("a Content-Length that hyper cannot represent");
            }
            _ if self.has_encoding && is_http_1_0 => {
                return refused("Transfer-Encoding in HTTP/1.0 (RFC 9112 section 6.1)");
            }
            _ if self.has_encoding && is_request && !self.chunked => {
                return refused("a Transfer-Encoding without chunked (RFC 9112 section 6.3)");
            }
            _ => {}
        }
        let is_empty = matches!(direction, Direction::Responses { to_head: true })
            || matches!(status, 101 | 204 | 304);
        Ok(match self.length {
            _ if is_empty => BodyFraming::None,
            _ if self.chunked => BodyFraming::Chunked,
            Some(length) => BodyFraming::Length(length),
            None if is_request => BodyFraming::None,
            None => BodyFraming::UntilEnd,
        })
    }
}

/// Reads a Content-Length: digits, and nothing else (RFC 9110 §8.6).
fn length(value: &[u8]) -> Option<u64> {
    let digits = str::from_utf8(value.trim_ascii()).ok()?;
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().ok()).flatten()
}

/// Whether bytes are a token (RFC 9110 §5.6.2).
fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().copied().all(is_token_byte)
}

/// Whether a byte may stand in a token.
pub(super) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
