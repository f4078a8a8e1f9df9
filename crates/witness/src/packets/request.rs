//! Reads from the packets of a connection which HTTP request was on it.

use std::time::Duration;

use super::conversation::Conversation;
use super::ending::begins_request;
use super::packet::Packet;

impl Conversation {
    /// Method and path of the last HTTP/1.1 request that was captured until `at`: `POST /orders`. A path whose end was
    /// not captured ends in `…`. The query is left out, because it may hold secrets.
    ///
    /// A request is found where a segment begins with it; in TLS and HTTP/2 there is none.
    pub fn request_until(&self, at: Duration) -> Option<String> {
        let until = self.packets().iter().rev().filter(|it| it.at <= at);
        let mut heads = until.filter(|packet| begins_request(packet.payload()));
        heads.next().map(method_and_path)
    }
}

fn method_and_path(head: &Packet) -> String {
    let payload = head.payload();
    let method_end = payload.iter().position(|byte| *byte == b' ');
    let (method, target) = payload.split_at(method_end.unwrap_or(payload.len()));
    let target = target.get(1..).unwrap_or_default();
    let end = target.iter().position(|byte| b" \r\n?#".contains(byte));
    let is_cut = end.is_none() && payload.len() < head.payload_bytes as usize;
    let target = String::from_utf8_lossy(&target[..end.unwrap_or(target.len())]);
    // Of `http://user:password@host/path` (RFC 9112 §3.2.2) only the path is kept.
    let path = match target.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("", |slash| &rest[slash..]),
        None => &target,
    };
    let more = if is_cut { "…" } else { "" };
    format!("{} {path}{more}", String::from_utf8_lossy(method))
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{conversations, to_client, to_server, with_payload};
    use super::*;

    fn request(texts: &[&str]) -> Option<String> {
        let packets = texts.iter().zip(1..).map(|(text, at)| {
            let packet = match text.starts_with("HTTP/") {
                true => to_client(at, "[P.]", [500, 100], text.len()),
                false => to_server(at, "[P.]", [100, 500], text.len()),
            };
            with_payload(&packet, text)
        });
        conversations(packets.collect())[0].request_until(Duration::from_millis(9))
    }

    #[test]
    fn the_last_request_of_a_connection_is_named_without_its_query() {
        let answer = "HTTP/1.1 200 OK\r\n\r\n";
        let requests = [
            "GET /first HTTP/1.1\r\n\r\n",
            answer,
            "POST /a/b?token=x HTTP/1.1\r\n",
        ];
        assert_eq!(request(&requests).as_deref(), Some("POST /a/b"));
        let with_a_body = [&requests[..], &["name=value"], &[answer]].concat();
        assert_eq!(request(&with_a_body).as_deref(), Some("POST /a/b"));
        for (head, told) in [
            ("OPTIONS * HTTP/1.1\r\n\r\n", "OPTIONS *"),
            ("GET http://a:secret@b/c?d HTTP/1.1\r\n\r\n", "GET /c"),
            ("GET /whole", "GET /whole"),
        ] {
            assert_eq!(request(&[head]).as_deref(), Some(told));
        }
        assert_eq!(request(&["\x16\x03\x01", answer]), None);
    }

    #[test]
    fn only_requests_until_the_reset_count() {
        let at = |at, path: &str| {
            let head = format!("GET {path} HTTP/1.1\r\n\r\n");
            with_payload(&to_server(at, "[P.]", [100, 500], head.len()), &head)
        };
        let conversation = &conversations(vec![at(1, "/before"), at(3, "/after")])[0];
        let until = |at| conversation.request_until(Duration::from_millis(at));
        assert_eq!(until(2).as_deref(), Some("GET /before"));
        assert_eq!(until(0), None);
    }

    #[test]
    fn a_path_whose_end_was_not_captured_is_marked() {
        let text = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(90));
        let mut packet = with_payload(&to_server(1, "[P.]", [100, 500], text.len()), &text);
        packet.cut();
        let told = conversations(vec![packet])[0].request_until(Duration::from_secs(1));
        assert_eq!(told, Some(format!("GET /{}…", "x".repeat(64 - 5))));
    }
}
