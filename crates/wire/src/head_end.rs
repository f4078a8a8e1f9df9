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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ends_after_the_blank_line() {
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

    proptest! {
        #[test]
        fn pieces_do_not_matter(bytes in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), any::<u8>()], 0..64), cut in 0usize..64) {
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
