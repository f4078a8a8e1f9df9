//! Parses a message's head: how its body is framed, and whether another message may follow.

use httparse::Status;

use super::{Direction, Malformed};

/// Limit of a head's fields; a direction may have a lower one.
pub(super) const MAX_FIELDS: usize = 128;

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
    /// The head has both Content-Length and Transfer-Encoding.
    pub is_ambiguous: bool,
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
            (head.parse(bytes), 0, head.version, head.headers)
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
            return Err(Malformed::new(format!(
                "HTTP/1 with more than {max_fields} header fields, and rstlab reads no more"
            )));
        }
        Err(error) => return Err(Malformed::quoting(&format!("not HTTP/1 ({error})"), bytes)),
    };
    let mut head = MessageHead {
        status,
        body: BodyFraming::None,
        is_last: false,
        is_ambiguous: false,
    };
    // An interim response ends with its head.
    if !head.is_interim() {
        let fields = FramingFields::read(fields);
        head.is_ambiguous = fields.length.is_some() && fields.has_encoding;
        head.body = fields.body(direction, status)?;
        head.is_last = fields.close
            || head.body == BodyFraming::UntilEnd
            || (version == Some(0) && !fields.keep_alive);
    }
    Ok(Status::Complete((length, head)))
}

/// The fields that say how long a message is and whether another may follow.
#[derive(Debug, Default)]
struct FramingFields {
    /// `Content-Length`, if there is one; `Some(None)` if it is no number.
    length: Option<Option<u64>>,
    has_encoding: bool,
    chunked: bool,
    close: bool,
    keep_alive: bool,
}

impl FramingFields {
    fn read(headers: &[httparse::Header<'_>]) -> Self {
        let mut fields = Self::default();
        for header in headers {
            let is = |name: &str| header.name.eq_ignore_ascii_case(name);
            let value = String::from_utf8_lossy(header.value);
            let has = |option: &str| {
                let mut options = value.split(',');
                options.any(|one| one.trim().eq_ignore_ascii_case(option))
            };
            if is("content-length") {
                let length = value.trim().parse().ok();
                // A bad length stays bad, whatever follows.
                fields.length = Some(fields.length.unwrap_or(length).and(length));
            } else if is("transfer-encoding") {
                fields.has_encoding = true;
                fields.chunked |= has("chunked");
            } else if is("connection") {
                fields.close |= has("close");
                fields.keep_alive |= has("keep-alive");
            }
        }
        fields
    }

    fn body(&self, direction: Direction, status: u16) -> Result<BodyFraming, Malformed> {
        let is_request = direction == Direction::Requests;
        // hyper refuses a request whose last coding is not chunked.
        if is_request && self.has_encoding {
            return Ok(BodyFraming::Chunked);
        }
        if self.length == Some(None) {
            return Err(Malformed::new("a Content-Length that is no number"));
        }
        let is_empty = matches!(direction, Direction::Responses { to_head: true })
            || matches!(status, 101 | 204 | 304);
        Ok(match self.length.flatten() {
            _ if is_empty => BodyFraming::None,
            _ if self.chunked => BodyFraming::Chunked,
            Some(length) => BodyFraming::Length(length),
            None if is_request => BodyFraming::None,
            None => BodyFraming::UntilEnd,
        })
    }
}
