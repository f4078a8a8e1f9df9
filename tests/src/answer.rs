//! A client's reads: exact bytes, a head, or all up to the end of the stream.

use std::io;

use rstlab_wire::HeadEnd;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::soon;

/// What a client read until the stream ended, and how it ended.
#[derive(Debug)]
pub struct Answer {
    /// Everything that came.
    pub bytes: Vec<u8>,
    /// A FIN, or the error of the last read.
    pub end: io::Result<()>,
}

/// Each method panics if the answer does not have what the method returns.
impl Answer {
    /// All bytes as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    fn head_bytes(&self) -> usize {
        let end = HeadEnd::default().feed(&self.bytes);
        end.unwrap_or_else(|| panic!("no whole head in {:?}", self.text()))
    }

    /// The first head, without its blank line.
    pub fn head(&self) -> String {
        let head = String::from_utf8_lossy(&self.bytes[..self.head_bytes()]);
        head.trim_end_matches("\r\n\r\n").to_owned()
    }

    /// The status.
    pub fn status(&self) -> u16 {
        let text = self.text();
        let status = text.split(' ').nth(1).unwrap_or_default();
        status
            .parse()
            .unwrap_or_else(|_| panic!("no status in {text:?}"))
    }

    /// The value of a field, which must be there once.
    pub fn field(&self, name: &str) -> String {
        let head = self.head().to_lowercase();
        let prefix = format!("{name}: ");
        let mut values = head.lines().filter_map(|line| line.strip_prefix(&prefix));
        match (values.next(), values.next()) {
            (Some(value), None) => value.to_owned(),
            _ => panic!("not one {name} in {head}"),
        }
    }

    /// The bytes after the first head.
    pub fn body(&self) -> &[u8] {
        &self.bytes[self.head_bytes()..]
    }

    /// The error number of the last read.
    pub fn errno(&self) -> Option<i32> {
        self.end.as_ref().err().and_then(io::Error::raw_os_error)
    }

    /// Checks that the answer is a whole response of `bytes` bytes of `x` with a clean end.
    pub fn assert_whole(&self, bytes: u64) {
        assert!(self.end.is_ok(), "{:?}", self.end);
        assert_eq!(self.field("content-length"), bytes.to_string());
        assert_eq!(self.body().len() as u64, bytes);
        assert!(self.body().iter().all(|byte| *byte == b'x'));
    }
}

/// Reads to the end, clean or not.
pub async fn read_to_end(stream: &mut (impl AsyncRead + Unpin)) -> Answer {
    let mut bytes = Vec::new();
    let end = soon(stream.read_to_end(&mut bytes)).await.map(drop);
    Answer { bytes, end }
}

/// Reads the next `count` bytes.
///
/// # Panics
/// The stream ends before.
pub async fn read_exactly(stream: &mut (impl AsyncRead + Unpin), count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    let read = soon(stream.read_exact(&mut bytes)).await;
    read.expect("as many bytes");
    bytes
}

/// Reads one head, and leaves the bytes behind it in the kernel.
///
/// # Panics
/// The stream ends before.
pub async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    try_read_head(stream).await.expect("a head")
}

/// Reads one head, and leaves the bytes behind it in the kernel; `None` is the end of the stream before that.
pub async fn try_read_head(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut head = Vec::new();
    let mut end = HeadEnd::default();
    soon(async {
        loop {
            let byte = [stream.read_u8().await.ok()?];
            head.extend_from_slice(&byte);
            if end.feed(&byte).is_some() {
                return Some(String::from_utf8_lossy(&head).into_owned());
            }
        }
    })
    .await
}
