//! Takes payload and credentials out of captured packets, so that a file of them can be handed on.

use std::collections::HashMap;

use super::conversation::Conversation;
use super::ending::begins_request;
use super::packet::Packet;

/// The fields whose values are blanked (RFC 9110 §11.6.2, §11.7.1, RFC 6265 §4).
const FIELDS: [&[u8]; 4] = [
    b"authorization",
    b"proxy-authorization",
    b"cookie",
    b"set-cookie",
];

/// In place of each byte of a value.
const BLANK: u8 = b'*';

impl Conversation {
    /// The same packets with the first 64 bytes of each payload only, and `*` in place of each byte of the values of
    /// `Authorization`, `Proxy-Authorization`, `Cookie` and `Set-Cookie`.
    ///
    /// If bytes before a segment are unknown, because they were cut off or not captured, the segment may begin within
    /// such a value. So it is blanked up to its first line end, unless it begins a message.
    pub(crate) fn without_payload(&self) -> Self {
        let mut streams = HashMap::new();
        let mut same = self.clone();
        for packet in same.packets_mut() {
            packet.cut();
            if packet.payload_bytes > 0 || packet.flags.syn() {
                let stream = streams.entry(packet.from);
                stream.or_insert_with(FieldLines::default).blank(packet);
            }
        }
        same
    }
}

/// The lines of one direction, from segment to segment.
#[derive(Debug, Default)]
struct FieldLines {
    /// The sequence number up to which the lines are known.
    known_to: Option<u32>,
    place: LinePlace,
}

/// A place in a line.
#[derive(Debug, Default)]
enum LinePlace {
    /// In a field's name, or where one may be: the bytes since the line's begin, in lower case.
    Name(Vec<u8>),
    /// In a value, or in a line of a body.
    Open,
    /// In a value that is blanked.
    #[default]
    Secret,
    /// Behind the line end of a value that is blanked: after white space the value goes on (RFC 9112 §5.2).
    AfterSecret,
}

impl FieldLines {
    /// Blanks the values in the next segment of the direction.
    fn blank(&mut self, packet: &mut Packet) {
        let payload = packet.payload();
        let begins = begins_request(payload) || payload.starts_with(b"HTTP/");
        if begins || packet.flags.syn() {
            self.place = LinePlace::Name(Vec::new());
        } else if self.known_to != Some(packet.seq) {
            self.place = LinePlace::Secret;
        }
        let is_whole = payload.len() == packet.payload_bytes as usize;
        self.known_to = is_whole.then_some(packet.payload_end());
        for byte in packet.payload_mut() {
            self.step(byte);
        }
    }

    fn step(&mut self, byte: &mut u8) {
        if let LinePlace::AfterSecret = self.place {
            self.place = match byte {
                b' ' | b'\t' => LinePlace::Secret,
                _ => LinePlace::Name(Vec::new()),
            };
        }
        match (&mut self.place, *byte) {
            (LinePlace::Secret, b'\n') => self.place = LinePlace::AfterSecret,
            // The white space around a value may stay, and so may the CR of its line end.
            (LinePlace::Secret, b' ' | b'\t' | b'\r') => {}
            (LinePlace::Secret, _) => *byte = BLANK,
            (_, b'\n') => self.place = LinePlace::Name(Vec::new()),
            (LinePlace::Name(name), b':') => {
                self.place = match FIELDS.contains(&name.trim_ascii_end()) {
                    true => LinePlace::Secret,
                    false => LinePlace::Open,
                };
            }
            // No name of `FIELDS` is as long.
            (LinePlace::Name(name), _) if name.len() >= 32 => self.place = LinePlace::Open,
            (LinePlace::Name(name), byte) => name.push(byte.to_ascii_lowercase()),
            (LinePlace::Open | LinePlace::AfterSecret, _) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{conversations, to_client, to_server, with_payload};
    use super::*;

    /// The payload that is kept of each of these segments of one direction, which follow each other.
    fn kept(segments: &[&str]) -> Vec<String> {
        let mut seq = 100;
        let packets = segments.iter().map(|text| {
            let packet = with_payload(&to_server(1, "[P.]", [seq, 500], text.len()), text);
            seq += text.len() as u32;
            packet
        });
        told(&packets.collect::<Vec<_>>())
    }

    fn told(packets: &[Packet]) -> Vec<String> {
        let conversation = conversations(packets.to_vec())[0].without_payload();
        let after = conversation.packets().iter();
        for (before, after) in packets.iter().zip(after.clone()) {
            assert_eq!(before.length(), after.length());
            assert_eq!(before.payload_bytes, after.payload_bytes);
        }
        let text = |it: &Packet| String::from_utf8_lossy(it.payload()).into_owned();
        after.map(text).collect()
    }

    #[test]
    fn the_values_of_fields_with_credentials_are_blanked_and_others_stay() {
        for (field, blanked) in [
            ("Authorization: Basic dTpw", "Authorization: ***** ****"),
            ("cookie:a=b", "cookie:***"),
            ("Proxy-Authorization : x", "Proxy-Authorization : *"),
            ("Set-Cookie: a\r\n b", "Set-Cookie: *\r\n *"),
            ("X-Cookie: a=b", "X-Cookie: a=b"),
            ("Cookie2: a=b", "Cookie2: a=b"),
        ] {
            let head = |field| format!("GET / HTTP/1.1\r\n{field}\r\nA: b\r\n\r\nbody");
            assert_eq!(kept(&[&head(field)]), [head(blanked)]);
        }
    }

    #[test]
    fn the_first_64_bytes_of_each_payload_are_kept() {
        let long = "GET /".to_owned() + &"x".repeat(60_000);
        assert_eq!(kept(&[&long, &long]), [&long[..64], &long[..64]]);
        let whole = "POST / HTTP/1.1\r\n\r\n";
        assert_eq!(kept(&[whole, "a body"]), [whole, "a body"]);
    }

    #[test]
    fn a_value_is_blanked_across_segments() {
        let value = ["GET / HTTP/1.1\r\nCoo", "kie: ab", "cd\r\nA: b\r\n"];
        let blanked = ["GET / HTTP/1.1\r\nCoo", "kie: **", "**\r\nA: b\r\n"];
        assert_eq!(kept(&value), blanked);
    }

    #[test]
    fn a_segment_after_unknown_bytes_is_blanked_up_to_its_first_line_end() {
        let cut = "GET / HTTP/1.1\r\nCookie: ".to_owned() + &"x".repeat(100);
        let begin = "GET / HTTP/1.1\r\nCookie: ".to_owned() + &"*".repeat(40);
        let next = ["token\r\nA: b\r\n\r\n", "HTTP/1.1 200"];
        let blanked = ["*****\r\nA: b\r\n\r\n", "HTTP/1.1 200"];
        assert_eq!(
            kept(&[&cut, next[0], next[1]]),
            [&begin, blanked[0], blanked[1]]
        );
        // A segment is missing between these, and the other direction has lines of its own.
        let packets = [
            with_payload(&to_server(1, "[P.]", [100, 500], 7), "POST /a"),
            with_payload(&to_server(2, "[P.]", [200, 500], 5), "token"),
            with_payload(&to_client(3, "[P.]", [500, 205], 8), "HTTP/1.1"),
            with_payload(&to_server(4, "[P.]", [205, 508], 6), "\r\nA: b"),
        ];
        assert_eq!(told(&packets), ["POST /a", "*****", "HTTP/1.1", "\r\nA: b"]);
    }
}
