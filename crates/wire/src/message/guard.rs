//! Guards an HTTP library from messages that can be read in two ways.

use tokio::io::ReadBuf;

use super::{Direction, Malformed, MessagePart, Messages};

/// The bytes that the library gets in place of a refused message. Whatever of the message the library has read before,
/// CR and no LF behind it is no HTTP/1.1 in a head nor in a chunked body; the blank line makes the head complete.
const REFUSED: &[u8] = b"\r\0\r\n\r\n";

/// Follows the messages that an HTTP library reads, and makes one that [`Messages`] refuses malformed for the library too.
///
/// A library may take what can be read in two ways: hyper takes Content-Length beside Transfer-Encoding, and LF alone
/// in a trailer section. Such a message may hide another one from a peer that reads the message otherwise (request
/// smuggling, RFC 9112 §11.2). hyper answers 400 in the request's place in the pipeline and closes.
#[derive(Debug)]
pub struct Framing {
    /// `None` behind a refused message, and behind the last one.
    messages: Option<Messages>,
    /// The message is the last one.
    is_last: bool,
    /// The head of the message says that the connection ends behind it.
    ends_connection: bool,
}

impl Framing {
    /// Guards a server.
    pub fn requests() -> Self {
        Self::new(Direction::Requests)
    }

    /// Guards a client that reads one response.
    pub fn response(to_head: bool) -> Self {
        Self::new(Direction::Responses { to_head })
    }

    fn new(direction: Direction) -> Self {
        Self {
            messages: Some(Messages::new(direction)),
            is_last: false,
            ends_connection: false,
        }
    }

    /// Whether all messages so far are whole, and another may come.
    pub fn is_between_messages(&self) -> bool {
        self.messages.as_ref().is_some_and(Messages::is_between)
    }

    /// Whether the head of the last message says that no other message follows (RFC 9112 §9.3).
    pub fn ends_connection(&self) -> bool {
        self.ends_connection
    }

    /// Looks at the bytes of `buf` behind the first `from`; if there is a message to be refused, returns why.
    pub fn check(&mut self, buf: &mut ReadBuf<'_>, mut from: usize) -> Option<Malformed> {
        while let Some(messages) = &mut self.messages
            && let bytes = &buf.filled()[from..]
            && !bytes.is_empty()
        {
            let step = match messages.step(bytes) {
                Ok(step) => step,
                Err(why) => {
                    // hyper has the same limits for a request's head, and answers 431.
                    if !(why.is_too_large && messages.direction == Direction::Requests) {
                        buf.set_filled(from);
                        buf.put_slice(&REFUSED[..REFUSED.len().min(buf.remaining())]);
                    }
                    self.messages = None;
                    return Some(why);
                }
            };
            from += step.bytes;
            if let MessagePart::Head(head) = step.part {
                self.ends_connection = head.is_last;
                self.is_last = head.is_last || messages.direction != Direction::Requests;
            }
            if step.ends && self.is_last {
                self.messages = None;
            }
        }
        None
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
    const BAD: &[&str] = &[
        "POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\nGET / HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: b\n\r\n",
    ];

    /// The bytes that the library gets of `bytes`, which arrive in pieces, and the reasons of refusals.
    fn guarded(framing: &mut Framing, bytes: &[u8], cuts: &[usize]) -> (Vec<u8>, usize) {
        let (mut got, mut refusals, mut rest) = (Vec::new(), 0, bytes);
        for cut in cuts.iter().cycle() {
            let (piece, behind) = rest.split_at(rest.len().min(*cut));
            rest = behind;
            let mut room = [0; 512];
            let mut buf = ReadBuf::new(&mut room);
            buf.put_slice(b"before");
            buf.put_slice(piece);
            refusals += usize::from(framing.check(&mut buf, 6).is_some());
            got.extend_from_slice(&buf.filled()[6..]);
            if rest.is_empty() {
                break;
            }
        }
        (got, refusals)
    }

    proptest! {
        #[test]
        fn a_bad_message_is_refused_behind_any_others_and_in_any_pieces(
            before in proptest::collection::vec(proptest::sample::select(GOOD), 0..5),
            bad in proptest::sample::select(BAD),
            cuts in proptest::collection::vec(1usize..40, 1..20),
        ) {
            let good: String = before.concat();
            let bytes = format!("{good}{bad}");
            let (got, refusals) = guarded(&mut Framing::requests(), bytes.as_bytes(), &cuts);
            prop_assert_eq!(refusals, 1);
            prop_assert!(got.starts_with(good.as_bytes()), "the others are untouched");
            let at = got.windows(REFUSED.len()).position(|bytes| bytes == REFUSED);
            prop_assert!(at.is_some_and(|at| bad.as_bytes().starts_with(&got[good.len()..at])));
        }

        #[test]
        fn garbage_does_not_panic(
            bytes in proptest::collection::vec(any::<u8>(), 1..200),
            good in proptest::sample::select(GOOD),
        ) {
            let mut framing = Framing::requests();
            guarded(&mut framing, good.as_bytes(), &[500]);
            guarded(&mut framing, &bytes, &[7]);
            guarded(&mut Framing::response(false), &bytes, &[500]);
        }
    }

    #[test]
    fn bytes_behind_the_last_message_are_not_looked_at() {
        let last = "GET / HTTP/1.1\r\nConnection: close\r\n\r\n\0";
        let (got, refusals) = guarded(&mut Framing::requests(), last.as_bytes(), &[500]);
        assert_eq!((got.as_slice(), refusals), (last.as_bytes(), 0));
        let response = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n\0";
        let (got, refusals) = guarded(&mut Framing::response(true), response.as_bytes(), &[500]);
        assert_eq!((got.as_slice(), refusals), (response.as_bytes(), 0));
    }
}
