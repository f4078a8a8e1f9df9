//! Guards an HTTP server from requests whose end can be read in two ways.

use super::{Direction, MessagePart, Messages};

/// Follows the framing of the requests on a connection and makes an ambiguous one malformed.
///
/// A request with both Content-Length and Transfer-Encoding may be an attempt at request smuggling
/// (RFC 9112 §6.3). hyper drops the Content-Length and goes on; programs that test others should be strict. If a head
/// has both, the last byte of its blank line is overwritten, so that hyper answers 400 in the request's place in the
/// pipeline and closes.
#[derive(Debug)]
pub struct Framing {
    /// `None` behind bytes that hyper refuses, because it reads no request behind them.
    requests: Option<Messages>,
}

impl Default for Framing {
    fn default() -> Self {
        Self {
            requests: Some(Messages::new(Direction::Requests)),
        }
    }
}

impl Framing {
    /// Says why a request was spoiled.
    pub const AMBIGUOUS: &str =
        "a request with both Content-Length and Transfer-Encoding (RFC 9112 section 6.3)";

    /// Looks at the next bytes of the connection; returns whether an ambiguous head was spoiled.
    pub fn check(&mut self, bytes: &mut [u8]) -> bool {
        let mut from = 0;
        while from < bytes.len()
            && let Some(requests) = &mut self.requests
        {
            let Ok(step) = requests.step(&bytes[from..]) else {
                self.requests = None;
                return false;
            };
            from += step.bytes;
            if matches!(step.part, MessagePart::Head(head) if head.is_ambiguous) {
                bytes[from - 1] = 0;
                self.requests = None;
                return true;
            }
        }
        false
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
    fn a_head_with_both_framings_is_spoiled() {
        for head in AMBIGUOUS {
            let mut bytes = head.as_bytes().to_vec();
            assert!(Framing::default().check(&mut bytes));
            assert_eq!(bytes.last(), Some(&0));
        }
    }

    proptest! {
        #[test]
        fn an_ambiguous_head_is_found_behind_any_requests_and_in_any_pieces(
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
        fn garbage_behind_a_request_does_not_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), good in proptest::sample::select(GOOD)) {
            let mut framing = Framing::default();
            framing.check(&mut good.as_bytes().to_vec());
            framing.check(&mut bytes);
            Framing::default().check(&mut bytes);
        }
    }
}
