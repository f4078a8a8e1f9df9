//! Changes a message's head as a proxy must (RFC 9110 §7.6).

use std::net::IpAddr;

use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, Entry, HOST, HeaderMap, HeaderName, HeaderValue, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::uri::{PathAndQuery, Uri};
use http::{Version, request};

use crate::config::ProxyConfig;
use crate::refuse::{self, Refused};

/// Fields that a trailer section may not have (RFC 9110 §6.5.1): for framing, routing, the connection, authentication,
/// controls and conditions, and those that describe the content or the response.
const NEVER_TRAILERS: &[&str] = &[
    "content-length",
    "transfer-encoding",
    "trailer",
    "forwarded",
    "host",
    "via",
    "x-forwarded-for",
    "x-forwarded-proto",
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "upgrade",
    "authorization",
    "cookie",
    "proxy-authenticate",
    "proxy-authorization",
    "set-cookie",
    "www-authenticate",
    "cache-control",
    "expect",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "max-forwards",
    "pragma",
    "range",
    "content-encoding",
    "content-range",
    "content-type",
    "age",
    "date",
    "expires",
    "location",
    "retry-after",
    "vary",
];

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Checks a request's head and turns it into the head for the upstream.
///
/// `Expect` is taken out: hyper answers `100 Continue` to the client when the body is first read, so that the
/// expectation is already met, as it is with nginx.
///
/// # Errors
/// The request is not to be forwarded.
pub(crate) fn forward_request(
    head: &mut request::Parts,
    client: IpAddr,
    config: &ProxyConfig,
) -> Result<(), Refused> {
    let target_host = refuse::check(head)?;
    if !is_chunked(&head.headers) {
        // The proxy decodes no other coding (RFC 9112 §6.1).
        return Err(Refused::NotImplemented);
    }
    let in_chunks = head.headers.contains_key(TRANSFER_ENCODING);
    let wants_trailers = has_token(&head.headers, &TE, "trailers");
    remove_hop_by_hop(&mut head.headers);
    head.headers.remove(EXPECT);

    // RFC 9112 §3.2.2: an absolute-form target gives the Host field.
    if let Some(host) = target_host {
        head.headers.insert(HOST, host);
        let path = head.uri.path_and_query().cloned();
        head.uri = Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
    }
    // HTTP/1.0 needs no Host, the request to the upstream does.
    if !head.headers.contains_key(HOST)
        && let Ok(host) = HeaderValue::from_str(&config.upstream)
    {
        head.headers.insert(HOST, host);
    }

    let version = if head.version == Version::HTTP_10 {
        "1.0"
    } else {
        "1.1"
    };
    head.version = Version::HTTP_11;
    append(&mut head.headers, VIA, &format!("{version} rstlab-proxy"));
    append(&mut head.headers, X_FORWARDED_FOR, &client.to_string());
    head.headers
        .insert(X_FORWARDED_PROTO, HeaderValue::from_static("http"));
    if wants_trailers {
        head.headers
            .insert(TE, HeaderValue::from_static("trailers"));
    }
    // Without "close" the connection persists (RFC 9112 §9.3).
    let connection = match (config.upstream_keepalive, wants_trailers) {
        (false, false) => Some("close"),
        (false, true) => Some("close, te"),
        (true, false) => None,
        (true, true) => Some("te"),
    };
    if let Some(connection) = connection {
        head.headers
            .insert(CONNECTION, HeaderValue::from_static(connection));
    }
    if in_chunks {
        // Without the field hyper drops a body of unknown length of GET and HEAD (`Client::set_length`).
        head.headers
            .insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    Ok(())
}

/// Turns a response's head into the head for the client.
///
/// # Errors
/// The response has a transfer coding other than chunked, which the proxy does not decode (RFC 9112 §6.1).
pub(crate) fn forward_response(headers: &mut HeaderMap) -> Result<(), NotDecoded> {
    if !is_chunked(headers) {
        return Err(NotDecoded);
    }
    remove_hop_by_hop(headers);
    Ok(())
}

/// A transfer coding that the proxy does not decode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotDecoded;

/// Whether chunked is the only transfer coding.
fn is_chunked(headers: &HeaderMap) -> bool {
    let mut codings = tokens(headers, &TRANSFER_ENCODING);
    codings.all(|coding| coding.eq_ignore_ascii_case("chunked"))
}

/// Removes the fields for one connection only: those that RFC 9110 §7.6.1 names, and those that `Connection` names. The
/// message's length stays, whatever `Connection` says. `Trailer` keeps the names that a trailer section may have: hyper
/// passes on a trailer only if `Trailer` names it.
fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = tokens(headers, &CONNECTION)
        .filter_map(|token| token.parse().ok())
        .filter(|name| name != CONTENT_LENGTH && name != HOST)
        .collect();
    let trailers: Vec<&str> = tokens(headers, &TRAILER)
        .filter(|name| {
            let name: Result<HeaderName, _> = name.parse();
            name.is_ok_and(|name| {
                !NEVER_TRAILERS.contains(&name.as_str()) && !named.contains(&name)
            })
        })
        .collect();
    let trailers = HeaderValue::from_str(&trailers.join(", ")).ok();
    if let Entry::Occupied(mut entry) = headers.entry(TRAILER) {
        match trailers.filter(|names| !names.is_empty()) {
            Some(names) => drop(entry.insert(names)),
            None => drop(entry.remove()),
        }
    }
    for name in named {
        headers.remove(name);
    }
    for name in [
        CONNECTION,
        KEEP_ALIVE,
        PROXY_CONNECTION,
        TE,
        TRANSFER_ENCODING,
        UPGRADE,
    ] {
        headers.remove(name);
    }
}

fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    tokens(headers, name).any(|found| found.eq_ignore_ascii_case(token))
}

/// Adds a value to a list field, in one line.
fn append(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    let values = headers.get_all(&name).iter().map(HeaderValue::as_bytes);
    let list: Vec<&[u8]> = values.chain([value.as_bytes()]).collect();
    if let Ok(value) = HeaderValue::from_bytes(&list.join(&b", "[..])) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

    fn forwarded(request: request::Builder) -> Result<request::Parts, Refused> {
        forwarded_by(request, false)
    }

    fn forwarded_by(
        request: request::Builder,
        upstream_keepalive: bool,
    ) -> Result<request::Parts, Refused> {
        let (mut head, ()) = request.body(()).unwrap().into_parts();
        let config = ProxyConfig {
            upstream: "upstream:8000".to_owned(),
            upstream_keepalive,
            ..ProxyConfig::default()
        };
        forward_request(&mut head, CLIENT, &config).map(|()| head)
    }

    #[test]
    fn hop_by_hop_fields_are_removed_and_the_proxy_s_are_added() {
        let head = forwarded(
            Request::post("/a?b=c")
                .header("host", "example.org")
                .header("connection", "keep-alive, X-Secret, Content-Length")
                .header("keep-alive", "timeout=5")
                .header("x-secret", "1")
                .header("te", "gzip")
                .header("upgrade", "websocket")
                .header("proxy-connection", "close")
                .header("expect", "100-continue")
                .header("x-forwarded-for", "203.0.113.5")
                .header("via", "1.1 front")
                .header("content-length", "3"),
        )
        .unwrap();
        for gone in [
            "keep-alive",
            "x-secret",
            "te",
            "upgrade",
            "proxy-connection",
            "expect",
        ] {
            assert!(!head.headers.contains_key(gone), "{gone}");
        }
        assert_eq!(head.headers["host"], "example.org");
        assert_eq!(head.headers["connection"], "close");
        assert_eq!(head.headers["content-length"], "3");
        assert_eq!(head.headers["x-forwarded-for"], "203.0.113.5, 192.0.2.7");
        assert_eq!(head.headers["x-forwarded-proto"], "http");
        assert_eq!(head.headers["via"], "1.1 front, 1.1 rstlab-proxy");
        assert_eq!(head.uri, "/a?b=c");
    }

    #[test]
    fn the_host_is_the_target_s_or_the_upstream_s() {
        let head =
            forwarded(Request::get("http://me:secret@target.example/x").header("host", "other"))
                .unwrap();
        assert_eq!(head.headers["host"], "target.example");
        assert_eq!(head.uri, "/x");
        let head = forwarded(Request::get("/").version(Version::HTTP_10)).unwrap();
        assert_eq!(head.headers["host"], "upstream:8000");
        assert_eq!(head.headers["via"], "1.0 rstlab-proxy");
    }

    #[test]
    fn trailers_are_asked_for_if_the_client_takes_them() {
        let head = forwarded(
            Request::get("/")
                .header("host", "x")
                .header("te", "trailers"),
        )
        .unwrap();
        assert_eq!(head.headers["te"], "trailers");
        assert_eq!(head.headers["connection"], "close, te");
    }

    #[test]
    fn a_connection_that_is_kept_is_not_announced_to_close() {
        let get = || {
            Request::get("/")
                .header("host", "x")
                .header("connection", "close")
        };
        let head = forwarded_by(get(), true).unwrap();
        assert!(!head.headers.contains_key("connection"));
        let head = forwarded_by(get().header("te", "trailers"), true).unwrap();
        assert_eq!(head.headers["connection"], "te");
    }
}
