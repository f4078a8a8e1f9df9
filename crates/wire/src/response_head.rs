use crate::HeadEnd;

/// Finds the end of the final response's head: interim ones (1xx, RFC 9110 §15.2) may come before it.
///
/// The HTTP library knows it too, but tells later: it may read a head and fail on the body in one go, and the
/// failure would then be noted in the wrong phase.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ResponseHead {
    end: HeadEnd,
    read_bytes: usize,
    interim: bool,
    complete: bool,
}

impl ResponseHead {
    /// Where the status stands in `HTTP/1.1 200 OK`.
    const STATUS: usize = 9;

    /// Whether the final head has come.
    pub(crate) fn is_complete(&self) -> bool {
        self.complete
    }

    /// Looks at the next bytes.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) {
        while !self.complete {
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
                    *self = Self::default();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interim_head_is_not_the_one_that_counts() {
        let bytes = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n";
        for piece in 1..bytes.len() {
            let mut head = ResponseHead::default();
            let mut pieces = bytes.chunks(piece);
            let last = pieces.next_back().unwrap();
            pieces.for_each(|piece| head.feed(piece));
            assert!(!head.is_complete(), "pieces of {piece}");
            head.feed(last);
            assert!(head.is_complete(), "pieces of {piece}");
        }
    }
}
