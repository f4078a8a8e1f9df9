//! The notation of the tables: `¶` is CRLF, `{12*x}` is twelve times `x`, `\n`, `\r`, `\t`, `\0`, `\xff` are bytes.

/// A row: a line `EXPECTED NAME | BYTES`, and the lines below it that begin with an arrow.
#[derive(Debug)]
pub(super) struct TableRow {
    /// The words before the name that begin with a digit.
    pub(super) expected: Vec<String>,
    pub(super) name: String,
    pub(super) sent: Vec<u8>,
    pub(super) arrows: Vec<Vec<u8>>,
}

/// Reads a table; `words` are its abbreviations, such as `{proxy}`.
pub(super) fn rows(table: &str, words: &[(&str, &str)]) -> Vec<TableRow> {
    let table = words.iter().fold(table.to_owned(), |table, (word, text)| {
        table.replace(word, text)
    });
    let mut rows: Vec<TableRow> = Vec::new();
    for line in table.lines() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(arrow) = line.strip_prefix("→ ") {
            rows.last_mut().unwrap().arrows.push(bytes(arrow));
            continue;
        }
        let (title, sent) = line.split_once(" | ").unwrap_or_else(|| panic!("{line}"));
        let is_name = |word: &&str| !word.starts_with(|first: char| first.is_ascii_digit());
        let at = title.split(' ').position(|word| is_name(&word)).unwrap();
        let mut expected: Vec<String> = title.split(' ').map(str::to_owned).collect();
        let name = expected.split_off(at).join(" ");
        rows.push(TableRow {
            expected,
            name,
            sent: bytes(sent),
            arrows: Vec::new(),
        });
    }
    rows
}

fn bytes(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (byte, used): (&[u8], usize) = match (first, rest.as_bytes().get(1)) {
            ('¶', _) => (b"\r\n", '¶'.len_utf8()),
            ('\\', Some(b'n')) => (b"\n", 2),
            ('\\', Some(b'r')) => (b"\r", 2),
            ('\\', Some(b't')) => (b"\t", 2),
            ('\\', Some(b'0')) => (b"\0", 2),
            ('\\', Some(b'\\')) => (b"\\", 2),
            ('\\', Some(b'x')) => (&[u8::from_str_radix(&rest[2..4], 16).unwrap()], 4),
            ('{', Some(b'0'..=b'9')) => {
                let end = rest.find('}').unwrap();
                let (times, what) = rest[1..end].split_once('*').unwrap();
                (&self::bytes(what).repeat(times.parse().unwrap()), end + 1)
            }
            _ => (&rest.as_bytes()[..first.len_utf8()], first.len_utf8()),
        };
        bytes.extend_from_slice(byte);
        rest = &rest[used..];
    }
    bytes
}
