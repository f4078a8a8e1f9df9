//! What holds for any bytes that a peer sends: functions for a fuzzer, each of which panics if it does not hold.

use crate::message::ResponseHead;
use crate::{Direction, HeadEnd, MessageHead, MessagePart, Messages};

/// The name of a function, and the function.
pub type FuzzTarget = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: &[FuzzTarget] = &[
    ("requests", requests),
    ("responses", responses),
    ("chunk_size", chunk_size),
];

/// The pieces of `bytes`, whose lengths follow from `seed`: 1 to 64 bytes, or all.
fn pieces(seed: u8, bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    let mut state = u32::from(seed);
    std::iter::from_fn(move || {
        // A linear congruential generator; its high bits are the better ones.
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let length = if seed == 0 {
            rest.len()
        } else {
            1 + (state >> 26) as usize
        };
        let (piece, after) = rest.split_at(length.min(rest.len()));
        rest = after;
        Some(piece).filter(|piece| !piece.is_empty())
    })
}

/// A message: its head, where the head ends, the bytes of its content, and where it ends.
type FollowedMessage = (MessageHead, usize, u64, Option<usize>);

/// The messages, and whether the follower gave up.
fn follow<'a>(
    direction: Direction,
    pieces: impl Iterator<Item = &'a [u8]>,
) -> (Vec<FollowedMessage>, bool) {
    let mut messages = Messages::new(direction);
    let mut found: Vec<FollowedMessage> = Vec::new();
    let mut at = 0;
    for mut piece in pieces {
        while !piece.is_empty() {
            let Ok(step) = messages.step(piece) else {
                return (found, true);
            };
            assert!((1..=piece.len()).contains(&step.bytes), "{step:?}");
            at += step.bytes;
            match step.part {
                MessagePart::Framing => {}
                MessagePart::Head(head) => found.push((head, at, 0, None)),
                MessagePart::Body => {
                    let message = found.last_mut().expect("a head comes before a body");
                    message.2 += step.bytes as u64;
                }
            }
            if step.ends {
                found.last_mut().expect("a head comes before an end").3 = Some(at);
            }
            piece = &piece[step.bytes..];
        }
    }
    (found, false)
}

/// The messages are the same in whatever pieces the bytes come.
fn same_in_pieces(direction: Direction, seed: u8, bytes: &[u8]) -> Vec<FollowedMessage> {
    let whole = follow(direction, std::iter::once(bytes));
    assert_eq!(whole, follow(direction, pieces(seed, bytes)));
    whole.0
}

/// The first byte says how the others are cut. Each head ends where httparse and the reader of a lazy server end it.
pub fn requests(data: &[u8]) {
    let Some((&seed, bytes)) = data.split_first() else {
        return;
    };
    let mut begin = Some(0);
    for (_, head_end, _, end) in same_in_pieces(Direction::Requests, seed, bytes) {
        let begun = begin.expect("only the last message may lack its end");
        let rest = &bytes[begun..];
        let length = head_end - begun;
        let mut fields = [httparse::EMPTY_HEADER; 128];
        let parsed = httparse::Request::new(&mut fields).parse(rest);
        assert_eq!(parsed, Ok(httparse::Status::Complete(length)));
        assert_eq!(HeadEnd::default().feed(rest), Some(length));
        begin = end;
    }
}

/// The first byte says how the others are cut, and whether the responses answer `HEAD`. The end of the first final head
/// is where the reader that only looks for that end finds it.
pub fn responses(data: &[u8]) {
    let Some((&seed, bytes)) = data.split_first() else {
        return;
    };
    let to_head = seed & 1 == 1;
    let found = same_in_pieces(Direction::Responses { to_head }, seed >> 1, bytes);
    if let Some((head, head_end, ..)) = found.first()
        && head.status >= 200
    {
        let complete_after = |bytes: &[u8]| {
            let mut head = ResponseHead::default();
            pieces(seed >> 1, bytes).for_each(|piece| head.feed(piece));
            head.is_complete()
        };
        assert!(complete_after(&bytes[..*head_end]));
        assert!(!complete_after(&bytes[..head_end - 1]));
    }
}

/// The size of a chunk is the one that httparse reads, or is refused. Leading zeros don't count, though httparse takes no
/// more than 16 digits with them.
pub fn chunk_size(data: &[u8]) {
    let Some(end) = data.iter().position(|byte| *byte == b'\n') else {
        return;
    };
    let line = &data[..=end];
    let mut messages = Messages::new(Direction::Requests);
    let head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    messages.step(head).expect("a sound head");
    for byte in line.chunks(1) {
        if messages.step(byte).is_err() {
            return;
        }
    }
    let zeros = line.iter().take_while(|byte| **byte == b'0').count();
    let parsed = httparse::parse_chunk_size(&line[zeros.saturating_sub(1)..]);
    let Ok(httparse::Status::Complete((_, size))) = parsed else {
        panic!("httparse refuses the line: {parsed:?}");
    };
    let data = [b'x'; 1024];
    let step = messages.step(&data[..]);
    match (size, step) {
        (0, Ok(step)) => assert_eq!(step.part, MessagePart::Framing),
        // Letters alone are no trailer.
        (0, Err(_)) => {}
        (size, step) => {
            let step = step.expect("the chunk's bytes");
            assert_eq!(step.part, MessagePart::Body);
            assert_eq!(step.bytes as u64, size.min(data.len() as u64));
        }
    }
}

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    #[test]
    fn what_holds_for_any_bytes_holds_for_the_seeds() {
        super::replay::replay(super::TARGETS);
    }
}
