//! A line of a chunked body's framing, read byte by byte and not kept.

/// The size of a chunk (`1A`, blanks, and an extension behind a semicolon), the end of its data, or a trailer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ChunkLine {
    pub(super) bytes: usize,
    has_content: bool,
    digits: usize,
    size: u64,
    at: SizePosition,
}

/// The position in the line, read as a size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum SizePosition {
    #[default]
    Digits,
    Blanks,
    Extension,
    Return,
    End,
    Bad,
}

impl ChunkLine {
    /// Looks at more of the line.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        use SizePosition::{Bad, Blanks, Digits, End, Extension, Return};
        self.bytes = self.bytes.saturating_add(bytes.len());
        for byte in bytes {
            self.has_content |= !matches!(byte, b'\r' | b'\n');
            self.at = match (self.at, byte) {
                (Digits, digit) if digit.is_ascii_hexdigit() => self.add(*digit),
                (Digits | Blanks, b' ' | b'\t') => Blanks,
                (Digits | Blanks, b';') => Extension,
                (Digits | Blanks | Extension, b'\r') => Return,
                (Return, b'\n') => End,
                (Extension, other) if *other != b'\n' => Extension,
                _ => Bad,
            };
        }
    }

    fn add(&mut self, digit: u8) -> SizePosition {
        let digit = char::from(digit).to_digit(16).unwrap_or_default();
        self.digits = self.digits.saturating_add(1);
        match self.size.checked_mul(16) {
            Some(size) => {
                self.size = size + u64::from(digit);
                SizePosition::Digits
            }
            None => SizePosition::Bad,
        }
    }

    /// Whether a whole line is empty.
    pub(super) fn is_empty(&self) -> bool {
        !self.has_content
    }

    /// The size that a whole line states, if it has no more digits than `max_digits`.
    pub(super) fn size(&self, max_digits: usize) -> Option<u64> {
        (self.at == SizePosition::End && self.digits <= max_digits).then_some(self.size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_size_is_read_as_httparse_reads_it(line in "[0-9a-fA-FxX]{0,17}[ \t]{0,2}(;[a-z=\r ]{0,3})?\r?") {
            let line = format!("{line}\n").into_bytes();
            let expected = match httparse::parse_chunk_size(&line) {
                Ok(httparse::Status::Complete((_, size))) => Some(size),
                _ => None,
            };
            let mut read = ChunkLine::default();
            read.feed(&line);
            prop_assert_eq!(read.size(16), expected);
        }
    }
}
