//! A line of a chunked body's framing (RFC 9112 §7.1), read byte by byte and not kept.

use super::head::is_token_byte;

/// Limit of a line: hyper has a limit for extensions and trailers, and none for the blanks behind a size.
const MAX_LINE_BYTES: usize = 16 * 1024;

/// Limit of a size's digits, leading zeros included.
const MAX_SIZE_DIGITS: usize = 16;

/// The size of a chunk (`1A`, blanks, and extensions behind semicolons), the end of its data, or a trailer.
///
/// Every line ends with CRLF: a reader that takes LF alone for an end sees other lines than one that does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ChunkLine {
    bytes: usize,
    digits: usize,
    size: u64,
    at: LinePosition,
}

/// The position in a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LinePosition {
    /// Before a size.
    Size,
    Digits,
    /// Behind a size, or an extension's value.
    Blanks,
    BeforeName,
    ExtensionName,
    NameBlanks,
    BeforeValue,
    ExtensionValue,
    Quoted,
    Escaped,
    /// Behind the data of a chunk.
    DataEnd,
    /// Before a trailer, or the blank line behind the trailers.
    Trailer,
    TrailerName,
    TrailerValue,
    Return,
    End,
    Bad,
}

impl ChunkLine {
    /// The line before a chunk's data.
    pub(super) const SIZE: Self = Self::new(LinePosition::Size);
    /// The line's end behind a chunk's data.
    pub(super) const DATA_END: Self = Self::new(LinePosition::DataEnd);
    /// A line behind the last chunk.
    pub(super) const TRAILER: Self = Self::new(LinePosition::Trailer);

    const fn new(at: LinePosition) -> Self {
        Self {
            bytes: 0,
            digits: 0,
            size: 0,
            at,
        }
    }

    /// Looks at more of the line.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.at = self.next(*byte);
        }
        self.bytes = self.bytes.saturating_add(bytes.len());
        if self.bytes > MAX_LINE_BYTES {
            self.at = LinePosition::Bad;
        }
    }

    fn next(&mut self, byte: u8) -> LinePosition {
        use LinePosition::{
            Bad, BeforeName, BeforeValue, Blanks, DataEnd, Digits, End, Escaped, ExtensionName,
            ExtensionValue, NameBlanks, Quoted, Return, Size, Trailer, TrailerName, TrailerValue,
        };
        let is_text = matches!(byte, b'\t' | b' '..=b'~' | 0x80..);
        match (self.at, byte) {
            (Size | Digits, digit) if digit.is_ascii_hexdigit() => self.add(digit),
            // RFC 9112 §7.1.1, and blanks before the line's end, as servers have sent them.
            (Digits | Blanks | ExtensionValue, b' ' | b'\t') => Blanks,
            (Digits | Blanks | ExtensionName | NameBlanks | ExtensionValue, b';') => BeforeName,
            (BeforeName, b' ' | b'\t') => BeforeName,
            (BeforeName | ExtensionName, byte) if is_token_byte(byte) => ExtensionName,
            (ExtensionName | NameBlanks, b' ' | b'\t') => NameBlanks,
            (ExtensionName | NameBlanks, b'=') => BeforeValue,
            (BeforeValue, b' ' | b'\t') => BeforeValue,
            (BeforeValue, b'"') => Quoted,
            (BeforeValue | ExtensionValue, byte) if is_token_byte(byte) => ExtensionValue,
            (Quoted, b'"') => Blanks,
            (Quoted, b'\\') => Escaped,
            (Quoted | Escaped, _) if is_text => Quoted,
            // RFC 9112 §5.
            (Trailer | TrailerName, byte) if is_token_byte(byte) => TrailerName,
            (TrailerName, b':') => TrailerValue,
            (TrailerValue, _) if is_text => TrailerValue,
            (
                Digits | Blanks | ExtensionName | NameBlanks | ExtensionValue | DataEnd | Trailer
                | TrailerValue,
                b'\r',
            ) => Return,
            (Return, b'\n') => End,
            _ => Bad,
        }
    }

    fn add(&mut self, digit: u8) -> LinePosition {
        if self.digits == MAX_SIZE_DIGITS {
            return LinePosition::Bad;
        }
        let digit = char::from(digit).to_digit(16).unwrap_or_default();
        self.digits += 1;
        self.size = self.size << 4 | u64::from(digit);
        LinePosition::Digits
    }

    /// Whether the bytes are no such line.
    pub(super) fn is_bad(&self) -> bool {
        self.at == LinePosition::Bad
    }

    /// Whether a whole line is empty.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes == 2
    }

    /// The size that a whole line states.
    pub(super) fn size(&self) -> u64 {
        self.size
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(mut line: ChunkLine, bytes: &str) -> Option<u64> {
        line.feed(bytes.as_bytes());
        (line.at == LinePosition::End).then_some(line.size)
    }

    proptest! {
        #[test]
        fn a_size_is_read_as_httparse_reads_it(line in "[0-9a-fA-FxX]{1,17}[ \t]{0,2}\r?") {
            let line = format!("{line}\n");
            let expected = match httparse::parse_chunk_size(line.as_bytes()) {
                Ok(httparse::Status::Complete((_, size))) => Some(size),
                _ => None,
            };
            prop_assert_eq!(read(ChunkLine::SIZE, &line), expected);
        }
    }

    #[test]
    fn extensions_are_names_with_or_without_values() {
        for good in [
            ";a",
            ";a=b",
            " ; a = b;c\t;d=\"\"",
            "; a=\"b;\\\"\\\\c\x7f\" ",
        ] {
            let line = format!("1{}\r\n", good.replace('\x7f', "\u{e9}"));
            assert_eq!(read(ChunkLine::SIZE, &line), Some(1), "{line:?}");
        }
        for bad in [
            ";",
            ";;",
            ";=b",
            ";a=",
            ";a b",
            ";a=b c",
            ";a=\"b",
            ";a=\"b\\",
            ";a=\"b\"c",
            ";a\0",
            ";a=\"\x01\"",
            ";a=\"\x7f\"",
            ";a\r;b",
            " a",
            ";a=\"\r\n\"",
        ] {
            let line = format!("1{bad}\r\n");
            assert_eq!(read(ChunkLine::SIZE, &line), None, "{line:?}");
        }
    }

    #[test]
    fn a_trailer_is_a_name_and_a_value() {
        for good in ["\r\n", "a:\r\n", "A-1: b\tc\r\n"] {
            assert_eq!(read(ChunkLine::TRAILER, good), Some(0), "{good:?}");
        }
        for bad in [
            "\n",
            "a: b\n",
            "a\r\n",
            ": b\r\n",
            " a: b\r\n",
            "a : b\r\n",
            "a: b\rc\r\n",
            "a: \0\r\n",
        ] {
            assert_eq!(read(ChunkLine::TRAILER, bad), None, "{bad:?}");
        }
    }
}
