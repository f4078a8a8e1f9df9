//! Finds where a head ends, without keeping a byte of it.

/// Finds where an HTTP/1.1 head ends in bytes that arrive in pieces.
///
/// A line ends with LF, with or without CR before it (RFC 9112 §2.2, and what parsers accept), and empty
/// lines before the first line do not count.
#[derive(Debug, Clone, Copy, Default)]
pub struct HeadEnd {
    started: bool,
    line_is_empty: bool,
}

impl HeadEnd {
    /// Looks at the next bytes; returns how many of them belong to the head once its blank line is complete.
    pub fn feed(&mut self, bytes: &[u8]) -> Option<usize> {
        for (at, byte) in bytes.iter().enumerate() {
            match byte {
                b'\n' if self.started && self.line_is_empty => return Some(at + 1),
                b'\n' => self.line_is_empty = self.started,
                b'\r' => {}
                _ => {
                    self.started = true;
                    self.line_is_empty = false;
                }
            }
        }
        None
    }
}

/// Finds the end of the final response's head: interim ones (1xx, RFC 9110 §15.2) may come before it.
///
/// The HTTP library knows the end too, but tells later: it may read a head and fail on the body in one call, and the
/// failure would be noted in the wrong phase.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ResponseHead {
    end: HeadEnd,
    read_bytes: usize,
    interim: bool,
    interim_heads: usize,
    complete: bool,
}

impl ResponseHead {
    /// Offset of the status in `HTTP/1.1 200 OK`.
    const STATUS: usize = 9;

    /// Whether the final head has come.
    pub(crate) fn is_complete(&self) -> bool {
        self.complete
    }

    /// The interim heads that have come.
    pub(crate) fn interim_heads(&self) -> usize {
        self.interim_heads
    }

    /// Looks at the next bytes.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) {
        while !self.complete {
            if self.read_bytes == 0 {
                // The status has its place in the status line; empty lines before that line do not count.
                let is_end = |byte: &&u8| matches!(byte, b'\r' | b'\n');
                bytes = &bytes[bytes.iter().take_while(is_end).count()..];
            }
            if let Some(at) = Self::STATUS.checked_sub(self.read_bytes)
                && let Some(digit) = bytes.get(at)
            {
                self.interim = *digit == b'1';
            }
            match self.end.feed(bytes) {
                None => {
                    self.read_bytes += bytes.len();
                    return;
                }
                Some(_) if !self.interim => self.complete = true,
                Some(end) => {
                    bytes = &bytes[end..];
                    *self = Self {
                        interim_heads: self.interim_heads + 1,
                        ..Self::default()
                    };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_head_ends_after_the_blank_line() {
        for head in [
            "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET / HTTP/1.1\nHost: x\n\n",
            "\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        ] {
            let with_body = format!("{head}body\r\n\r\n");
            assert_eq!(
                HeadEnd::default().feed(with_body.as_bytes()),
                Some(head.len())
            );
        }
        assert_eq!(HeadEnd::default().feed(b"GET / HTTP/1.1\r\n"), None);
        assert_eq!(HeadEnd::default().feed(b"\r\n\r\n\r\n"), None);
    }

    #[test]
    fn an_interim_head_is_not_the_final_one() {
        let bytes = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n";
        for piece in 1..bytes.len() {
            let mut head = ResponseHead::default();
            let mut pieces = bytes.chunks(piece);
            let last = pieces.next_back().unwrap();
            pieces.for_each(|piece| head.feed(piece));
            assert!(!head.is_complete(), "pieces of {piece}");
            head.feed(last);
            assert!(head.is_complete(), "pieces of {piece}");
            assert_eq!(head.interim_heads(), 2, "pieces of {piece}");
        }
    }

    #[test]
    fn empty_lines_before_a_response_do_not_hide_its_status() {
        for (status, is_final) in [(200, true), (100, false)] {
            let bytes = format!("\r\n\nHTTP/1.1 {status} x\r\n\r\n");
            for piece in 1..bytes.len() {
                let mut head = ResponseHead::default();
                bytes.as_bytes().chunks(piece).for_each(|it| head.feed(it));
                assert_eq!(head.is_complete(), is_final, "{status}, pieces of {piece}");
            }
        }
    }

    proptest! {
        #[test]
        fn pieces_of_any_size_have_the_same_head_end(bytes in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), any::<u8>()], 0..64), cut in 0usize..64) {
            let whole = HeadEnd::default().feed(&bytes);
            let cut = cut.min(bytes.len());
            let mut pieces = HeadEnd::default();
            let found = pieces
                .feed(&bytes[..cut])
                .or_else(|| pieces.feed(&bytes[cut..]).map(|n| n + cut));
            prop_assert_eq!(whole, found);
        }
    }
}
