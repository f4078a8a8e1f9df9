//! Follows the HTTP/1.1 messages of one direction of a connection: where heads, bodies and messages end.
//!
//! There is one follower, [`Messages`], for requests and for responses. [`Framing`] uses it to guard a server,
//! `rstlab check` uses it to judge responses. [`HeadEnd`] finds the end of a head alone, and keeps nothing.

mod chunk;
mod guard;
mod head;
mod head_end;

pub use guard::Framing;
pub use head::{BodyFraming, MessageHead, is_beginning_of_request};
pub use head_end::HeadEnd;
pub(crate) use head_end::ResponseHead;

use chunk::ChunkLine;
use httparse::Status;

/// Limit of a request's head in bytes; the servers here set hyper's limit to the same, which answers 431.
pub const MAX_HEAD_BYTES: usize = 16 * 1024;

/// Limit of the interim responses before a final one.
pub(crate) const MAX_INTERIM: usize = 100;

/// Limit of the bytes that an error quotes.
const QUOTED_BYTES: usize = 24;

/// The kind of messages that one direction of a connection carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From client to server.
    Requests,
    /// From server to client.
    Responses {
        /// The responses answer `HEAD`, so that none has a body (RFC 9112 §6.3).
        to_head: bool,
    },
}

/// Sizes of a head beyond which a direction's bytes are malformed.
struct Limits {
    head_bytes: usize,
    fields: usize,
}

impl Direction {
    fn limits(self) -> Limits {
        match self {
            // hyper's limits, too.
            Direction::Requests => Limits {
                head_bytes: MAX_HEAD_BYTES,
                fields: 100,
            },
            Direction::Responses { .. } => Limits {
                head_bytes: 64 * 1024,
                fields: head::MAX_FIELDS,
            },
        }
    }
}

/// Why bytes are no HTTP/1.1 message. Nothing can be said of the bytes that follow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Malformed {
    why: String,
    /// The head is over a limit, and may be HTTP/1.1 beyond it.
    is_too_large: bool,
}

impl Malformed {
    /// A TLS record, an alert or a handshake (RFC 8446 §5.1), stands in place of a head.
    pub const TLS: &str = "TLS: the port speaks https";
    /// A SETTINGS or GOAWAY frame on stream 0 (RFC 9113 §4.1, §6.5, §6.8) stands in place of a head.
    pub const HTTP2: &str = "HTTP/2: the port speaks it without TLS, and no HTTP/1.1";

    fn new(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            is_too_large: false,
        }
    }

    fn too_large(why: String) -> Self {
        Self {
            why,
            is_too_large: true,
        }
    }

    /// Quotes the first bytes, escaped for a terminal.
    fn quoting(why: &str, bytes: &[u8]) -> Self {
        let bytes = &bytes[..bytes.len().min(QUOTED_BYTES)];
        Self::new(format!("{why}: \"{}\"", bytes.escape_ascii()))
    }
}

/// One step of the follower: the bytes that it looked at, and what they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Followed {
    /// Number of the bytes looked at; at least one.
    pub bytes: usize,
    /// The part of a message that those bytes are.
    pub part: MessagePart,
    /// The message ends with the last of those bytes.
    pub ends: bool,
}

/// A part of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessagePart {
    /// Some of a head, an interim response, or some of a body's chunk framing and trailers.
    Framing,
    /// The last bytes of a head that is not an interim response's.
    Head(MessageHead),
    /// Some of a body's content.
    Body,
}

/// Follows messages in bytes that come in pieces of any size.
#[derive(Debug)]
pub struct Messages {
    direction: Direction,
    at: MessagePosition,
    head_end: HeadEnd,
    /// A head that is not complete, or the beginning of a line of chunk framing.
    begun: Vec<u8>,
    /// The line of chunk framing that has begun.
    line: ChunkLine,
    interim: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MessagePosition {
    Head,
    Sized { left: u64 },
    ChunkSize,
    ChunkData { left: u64 },
    ChunkEnd,
    Trailer,
    UntilEnd,
}

impl Messages {
    /// Follows a direction from its first byte.
    pub fn new(direction: Direction) -> Self {
        Self {
            direction,
            at: MessagePosition::Head,
            head_end: HeadEnd::default(),
            begun: Vec::new(),
            line: ChunkLine::SIZE,
            interim: 0,
        }
    }

    /// Looks at some of the next bytes, which must not be empty.
    ///
    /// # Errors
    /// The bytes are no HTTP/1.1 message; this follower can't go on.
    pub fn step(&mut self, bytes: &[u8]) -> Result<Followed, Malformed> {
        let (bytes, part) = match &mut self.at {
            MessagePosition::Head => self.head(bytes)?,
            MessagePosition::Sized { left } | MessagePosition::ChunkData { left } => {
                let used = usize::try_from(*left).unwrap_or(usize::MAX);
                let used = used.min(bytes.len());
                *left -= used as u64;
                if matches!(self.at, MessagePosition::ChunkData { left: 0 }) {
                    self.at = MessagePosition::ChunkEnd;
                }
                (used, MessagePart::Body)
            }
            MessagePosition::UntilEnd => (bytes.len(), MessagePart::Body),
            MessagePosition::ChunkSize | MessagePosition::ChunkEnd | MessagePosition::Trailer => {
                (self.line(bytes)?, MessagePart::Framing)
            }
        };
        let ends = self.at == MessagePosition::Sized { left: 0 };
        if ends {
            self.at = MessagePosition::Head;
        }
        Ok(Followed { bytes, part, ends })
    }

    /// Whether the bytes so far end with a message, or there are none.
    pub(crate) fn is_between(&self) -> bool {
        self.at == MessagePosition::Head && self.begun.is_empty()
    }

    /// Whether the end of the stream is the end of the message here.
    pub fn ends_with_stream(&self) -> bool {
        self.at == MessagePosition::UntilEnd
    }

    fn head(&mut self, bytes: &[u8]) -> Result<(usize, MessagePart), Malformed> {
        let before = self.begun.len();
        let limits = self.direction.limits();
        // A response is parsed with each piece, so that bytes which are not HTTP are an error at once. A request head
        // is parsed when it is complete: a client that sends it byte by byte costs no more than others.
        let is_request = self.direction == Direction::Requests;
        let ended = is_request && self.head_end.feed(bytes).is_some();
        // Most heads come in one piece, and are not copied.
        if before > 0 {
            self.begun.extend_from_slice(bytes);
        }
        let seen = if before > 0 { &self.begun } else { bytes };
        let parsed = match seen {
            _ if is_request && !ended => Status::Partial,
            // The first byte of a TLS record may come alone.
            [0x15 | 0x16] => Status::Partial,
            [0x15 | 0x16, 3, ..] => return Err(Malformed::new(Malformed::TLS)),
            [0, _, _, 4 | 7, _, 0, 0, 0, 0, ..] => return Err(Malformed::new(Malformed::HTTP2)),
            _ => head::parse(seen, self.direction, limits.fields)?,
        };
        let why = || format!("a head of more than {} KiB", limits.head_bytes / 1024);
        let Status::Complete((length, head)) = parsed else {
            if ended || seen.len() > limits.head_bytes {
                return Err(match ended {
                    true => Malformed::new(why()),
                    false => Malformed::too_large(why()),
                });
            }
            if before == 0 {
                self.begun.extend_from_slice(bytes);
            }
            return Ok((bytes.len(), MessagePart::Framing));
        };
        // The same limit for a head that comes in one piece; hyper has it, too (`Server::parse`).
        if length > limits.head_bytes {
            return Err(Malformed::too_large(why()));
        }
        self.begun = Vec::new();
        self.head_end = HeadEnd::default();
        let part = if !is_request && head.is_interim() {
            self.interim += 1;
            if self.interim > MAX_INTERIM {
                let why = format!("more than {MAX_INTERIM} interim responses");
                return Err(Malformed::new(why));
            }
            MessagePart::Framing
        } else {
            self.interim = 0;
            self.at = match head.body {
                BodyFraming::None => MessagePosition::Sized { left: 0 },
                BodyFraming::Length(left) => MessagePosition::Sized { left },
                BodyFraming::Chunked => MessagePosition::ChunkSize,
                BodyFraming::UntilEnd => MessagePosition::UntilEnd,
            };
            MessagePart::Head(head)
        };
        Ok((length - before, part))
    }

    /// A line of chunk framing (RFC 9112 §7.1).
    fn line(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let used = end.map_or(bytes.len(), |at| at + 1);
        let bytes = &bytes[..used];
        // An error quotes no more than this.
        let room = QUOTED_BYTES - self.begun.len();
        self.begun.extend_from_slice(&bytes[..used.min(room)]);
        self.line.feed(bytes);
        if self.line.is_bad() {
            let what = match self.at {
                MessagePosition::ChunkEnd => "a chunk longer than its size",
                MessagePosition::Trailer => "a bad trailer",
                _ => "a bad chunk size",
            };
            return Err(Malformed::quoting(what, &self.begun));
        }
        if end.is_none() {
            return Ok(used);
        }
        (self.at, self.line) = match self.at {
            MessagePosition::ChunkSize => match self.line.size() {
                0 => (MessagePosition::Trailer, ChunkLine::TRAILER),
                left => (MessagePosition::ChunkData { left }, ChunkLine::DATA_END),
            },
            MessagePosition::Trailer if !self.line.is_empty() => {
                (MessagePosition::Trailer, ChunkLine::TRAILER)
            }
            MessagePosition::Trailer => (MessagePosition::Sized { left: 0 }, ChunkLine::SIZE),
            _ => (MessagePosition::ChunkSize, ChunkLine::SIZE),
        };
        self.begun.clear();
        Ok(used)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RESPONSES: Direction = Direction::Responses { to_head: false };

    /// Each message as its head, the bytes of its content and whether it ended; and the error at the end.
    type FoundMessages = (Vec<(MessageHead, usize, bool)>, Option<Malformed>);

    fn follow<'a>(direction: Direction, pieces: impl Iterator<Item = &'a [u8]>) -> FoundMessages {
        let mut messages = Messages::new(direction);
        let mut found: Vec<(MessageHead, usize, bool)> = Vec::new();
        for mut bytes in pieces {
            while !bytes.is_empty() {
                let step = match messages.step(bytes) {
                    Ok(step) => step,
                    Err(error) => return (found, Some(error)),
                };
                match step.part {
                    MessagePart::Framing => {}
                    MessagePart::Head(head) => found.push((head, 0, false)),
                    MessagePart::Body => found.last_mut().unwrap().1 += step.bytes,
                }
                if step.ends {
                    found.last_mut().unwrap().2 = true;
                }
                bytes = &bytes[step.bytes..];
            }
        }
        (found, None)
    }

    /// Beginnings, middles and ends of messages, sound and not.
    const PARTS: &[&str] = &[
        "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 204 No\r\n\r\n",
        "POST / HTTP/1.1\r\n",
        "Content-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\n",
        "\r\n",
        "\n",
        "\r",
        "12345",
        "5\r\n",
        "00000000000005 ;a=\"b\"\r\n",
        "00000000000000005\r\n",
        ";a",
        "Connection: close \u{e9}\r\n",
        "0\r\n",
        "X: y\r\n",
    ];

    proptest! {
        #[test]
        fn pieces_of_any_size_give_the_same_messages_and_garbage_does_not_panic(
            parts in proptest::collection::vec(proptest::sample::select(PARTS), 0..12),
            garbage in proptest::collection::vec(any::<u8>(), 0..100),
            size in 1usize..40,
        ) {
            let bytes = [parts.concat().as_bytes(), &garbage].concat();
            for direction in [Direction::Requests, RESPONSES] {
                let (whole, error) = follow(direction, std::iter::once(&bytes[..]));
                let (pieces, other) = follow(direction, bytes.chunks(size));
                prop_assert_eq!(whole, pieces);
                prop_assert_eq!(error.is_some(), other.is_some());
            }
        }
    }

    fn framing(direction: Direction, head: &str) -> BodyFraming {
        let (found, error) = follow(direction, std::iter::once(head.as_bytes()));
        assert_eq!(error, None, "{head}");
        found[0].0.body
    }

    #[test]
    fn the_limit_of_a_head_holds_in_one_piece_and_in_many() {
        for (direction, first, limit) in [
            (Direction::Requests, "GET / HTTP/1.1\r\nX: ", 16 * 1024),
            (RESPONSES, "HTTP/1.1 204 No\r\nX: ", 64 * 1024),
        ] {
            for (length, heads) in [(limit, 1), (limit + 1000, 0)] {
                let value = "x".repeat(length - first.len() - 4);
                let head = format!("{first}{value}\r\n\r\n");
                for piece in [length, 1000] {
                    let (found, error) = follow(direction, head.as_bytes().chunks(piece));
                    assert_eq!((found.len(), error.is_none()), (heads, heads == 1));
                }
            }
        }
    }

    #[test]
    fn a_response_without_a_length_ends_with_the_stream_and_a_request_has_no_body() {
        assert_eq!(
            framing(RESPONSES, "HTTP/1.1 200 OK\r\n\r\n"),
            BodyFraming::UntilEnd
        );
        assert_eq!(
            framing(Direction::Requests, "GET / HTTP/1.1\r\n\r\n"),
            BodyFraming::None
        );
    }

    #[test]
    fn answers_to_head_and_bodiless_statuses_have_no_body() {
        let to_head = Direction::Responses { to_head: true };
        for (direction, status) in [
            (to_head, 200),
            (RESPONSES, 101),
            (RESPONSES, 204),
            (RESPONSES, 304),
        ] {
            let head = format!("HTTP/1.1 {status} x\r\nContent-Length: 5\r\n\r\n");
            assert_eq!(framing(direction, &head), BodyFraming::None, "{head}");
        }
    }
}
