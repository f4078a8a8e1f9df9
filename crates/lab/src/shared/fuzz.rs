//! What holds for the timeline of any record, any URL, any value of a setting, and any requests that hyper serves.

use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::Rc;

use bytes::Bytes;
use http::header::HeaderValue;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rstlab_cli::allowed;
use rstlab_wire::{Direction, Framing, MAX_HEAD_BYTES, MessagePart, Messages};
use rstlab_witness::Record;
use tokio::io::{AsyncWriteExt as _, ReadBuf, duplex};

use super::timeline::Timeline;
use super::url::Url;

/// Room for the answers to the requests that fit into an input.
const ANSWER_BYTES: usize = 1024 * 1024;

/// The least room that a read has.
const MIN_READ_BYTES: usize = 512;

/// A record that is read can be drawn, and nothing in the record gives the terminal an order.
pub(crate) fn timeline(data: &[u8]) {
    let Ok(record) = Record::from_json(&String::from_utf8_lossy(data)) else {
        return;
    };
    let timeline = Timeline::of(&record);
    let text = timeline.text();
    let order = text.chars().find(|c| c.is_control() && *c != '\n');
    assert_eq!(order, None, "{text:?}");
    timeline.svg();
}

/// The parts of a URL can stand in a request's head.
pub(crate) fn url(data: &[u8]) {
    let Some(url) = Url::parse(&String::from_utf8_lossy(data)) else {
        return;
    };
    assert!(HeaderValue::from_str(url.authority()).is_ok(), "{url}");
    let path = url.path();
    let splits = |c: char| c.is_ascii_whitespace() || c.is_ascii_control();
    assert!(path.starts_with('/') && !path.contains(splits), "{path:?}");
    assert_eq!(Url::parse(&url.to_string()), Some(url));
}

/// The values that are read are within their bounds.
pub(crate) fn settings(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let hour = std::time::Duration::from_secs(3600);
    assert!((allowed::time().parse)(&text).is_none_or(|time| time <= hour));
    assert!((allowed::time_limit().parse)(&text).is_none_or(|time| !time.is_zero()));
    assert_ne!((allowed::byte_limit().parse)(&text), Some(Some(0)));
    assert!((allowed::count(7).parse)(&text).is_none_or(|count| (1..=7).contains(&count)));
    if let Some(address) = (allowed::host_port().parse)(&text) {
        assert!(!address.contains(char::is_whitespace), "{address:?}");
    }
    let _ = (rstlab_cli::log_filter().parse)(&text);
}

/// The first byte is the length of the pieces in which the others reach the guard. Behind the guard, hyper serves no other
/// requests than the follower of messages sees, none that can be read in two ways, and their bodies are as long.
pub(crate) fn requests_of_hyper(data: &[u8]) {
    let Some((&piece, bytes)) = data.split_first() else {
        return;
    };
    let expected = followed(bytes);
    let served = served(&guarded(bytes, 1 + 8 * usize::from(piece)));
    for (number, (body_bytes, is_whole)) in served.into_iter().enumerate() {
        let Some(&(expected_bytes, ends)) = expected.get(number) else {
            panic!("hyper serves request {number}, which the follower does not see");
        };
        assert!(body_bytes <= expected_bytes, "body of request {number}");
        if is_whole {
            assert!(
                ends && body_bytes == expected_bytes,
                "end of request {number}"
            );
        }
    }
}

/// The bytes as they leave the guard.
fn guarded(bytes: &[u8], piece: usize) -> Vec<u8> {
    let (mut framing, mut guarded) = (Framing::requests(), Vec::new());
    for piece in bytes.chunks(piece) {
        // As large as the buffer that a connection reads into, or larger.
        let mut room = vec![0; piece.len().max(MIN_READ_BYTES)];
        let mut buf = ReadBuf::new(&mut room);
        buf.put_slice(piece);
        framing.check(&mut buf, 0);
        guarded.extend_from_slice(buf.filled());
    }
    guarded
}

/// The bytes of each request's body, and whether the request is whole, as the follower sees it.
fn followed(mut bytes: &[u8]) -> Vec<(u64, bool)> {
    let mut messages = Messages::new(Direction::Requests);
    let mut found: Vec<(u64, bool)> = Vec::new();
    while !bytes.is_empty()
        && let Ok(step) = messages.step(bytes)
    {
        match (step.part, found.last_mut()) {
            (MessagePart::Head(_), _) => found.push((0, step.ends)),
            (part, Some(last)) => {
                let is_body = part == MessagePart::Body;
                last.0 += if is_body { step.bytes as u64 } else { 0 };
                last.1 |= step.ends;
            }
            (_, None) => {}
        }
        bytes = &bytes[step.bytes..];
    }
    found
}

/// The same, as hyper serves it.
fn served(bytes: &[u8]) -> Vec<(u64, bool)> {
    let found = Rc::new(RefCell::new(Vec::new()));
    let service = service_fn(|request: Request<Incoming>| {
        let found = Rc::clone(&found);
        async move {
            let number = found.borrow().len();
            found.borrow_mut().push((0, false));
            let mut body = request.into_body();
            loop {
                let frame = body.frame().await;
                let one = &mut found.borrow_mut()[number];
                match frame {
                    Some(Ok(frame)) => one.0 += frame.data_ref().map_or(0, Bytes::len) as u64,
                    Some(Err(_)) => break,
                    None => {
                        one.1 = true;
                        break;
                    }
                }
            }
            // A refusal, so that hyper does not hand the connection over to another protocol.
            let mut response = Response::new(Empty::<Bytes>::new());
            *response.status_mut() = StatusCode::NOT_FOUND;
            Ok::<_, Infallible>(response)
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.expect("a runtime").block_on(async {
        let (mut client, server) = duplex(ANSWER_BYTES.max(bytes.len()));
        client.write_all(bytes).await.expect("there is room");
        client.shutdown().await.expect("it is open");
        let connection = http1::Builder::new()
            .half_close(true)
            .max_header_size(MAX_HEAD_BYTES)
            .serve_connection(TokioIo::new(server), service);
        // Bytes that are no request are an error.
        let _ = connection.await;
    });
    found.take()
}
