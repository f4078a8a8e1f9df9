//! Reads the output of strace: the calls that wrote to sockets, with their bytes.

use std::fmt;

use rstlab_tests::strace_calls;

use crate::HEAD_END;

/// One system call that wrote to a socket.
pub(crate) struct WriteCall {
    name: String,
    pub(crate) bytes: Vec<u8>,
}

impl fmt::Debug for WriteCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", self.name, self.bytes.escape_ascii())
    }
}

impl WriteCall {
    pub(crate) fn is_writev(&self) -> bool {
        self.name == "writev"
    }

    /// Whether it carries a head to its end, and nothing after it.
    pub(crate) fn is_head(&self) -> bool {
        let first_end = self.bytes.windows(4).position(|four| four == HEAD_END);
        first_end == Some(self.bytes.len() - HEAD_END.len())
    }
}

/// Reads strace's output: the socket's two ends, and what was written to it.
pub(crate) fn calls(trace: &str) -> Vec<(String, WriteCall)> {
    let mut calls = Vec::new();
    for text in strace_calls(trace) {
        let returned = text.rsplit_once(" = ").map(|(_, value)| value.parse());
        // Other lines are calls that failed (EAGAIN), signals and exits.
        let Some(Ok(written)) = returned else {
            continue;
        };
        if let Some((name, arguments)) = text.split_once('(')
            && let Some((_, socket)) = arguments.split_once("<TCP:[")
            && let Some((socket, data)) = socket.split_once("]>")
        {
            let mut bytes: Vec<u8> = data.split('"').skip(1).step_by(2).flat_map(hex).collect();
            bytes.truncate(written);
            let name = name.to_owned();
            calls.push((socket.to_owned(), WriteCall { name, bytes }));
        }
    }
    calls
}

/// `\x61\x62` as bytes.
fn hex(text: &str) -> impl Iterator<Item = u8> {
    text.split("\\x")
        .skip(1)
        .map(|digits| u8::from_str_radix(digits, 16).expect("-xx prints hexadecimal"))
}
