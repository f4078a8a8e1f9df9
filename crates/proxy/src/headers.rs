//! Changes a message's head as a proxy must (RFC 9110 §7.6).

use std::net::IpAddr;

use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, MAX_FORWARDS, TE,
    TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::uri::{PathAndQuery, Uri};
use http::{Method, Version, request};

use crate::config::ProxyConfig;

/// A request that is not forwarded because of its head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// RFC 9112 §3.2: an HTTP/1.1 request has exactly one Host field, and its target has a path.
    Malformed,
    /// A method or a transfer coding that a reverse proxy does not pass on.
    NotImplemented,
    /// `OPTIONS` with `Max-Forwards: 0`: for the proxy itself (RFC 9110 §7.6.2).
    ForTheProxy,
}

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
    check(head)?;
    let wants_trailers = has_token(&head.headers, &TE, "trailers");
    remove_hop_by_hop(&mut head.headers);
    head.headers.remove(EXPECT);

    let authority = head.uri.authority().cloned();
    let host = match &authority {
        // RFC 9112 §3.2.2: an absolute-form target gives the Host field, without the password that the target may hold
        // (RFC 9110 §4.2.4).
        Some(authority) => {
            let host = authority.as_str().rsplit('@').next();
            host.and_then(|host| HeaderValue::from_str(host).ok())
        }
        // HTTP/1.0 needs no Host, the request to the upstream does.
        None if !head.headers.contains_key(HOST) => HeaderValue::from_str(&config.upstream).ok(),
        None => None,
    };
    if let Some(host) = host {
        head.headers.insert(HOST, host);
    }
    if authority.is_some() {
        let path = head.uri.path_and_query().cloned();
        head.uri = Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
    }

    let version = if head.version == Version::HTTP_10 {
        "1.0"
    } else {
        "1.1"
    };
    head.version = Version::HTTP_11;
    append(&mut head.headers, VIA, &format!("{version} rstlab-proxy"));
    append(
        &mut head.headers,
        HeaderName::from_static("x-forwarded-for"),
        &client.to_string(),
    );
    head.headers.insert(
        HeaderName::from_static("x-forwarded-proto"),
        HeaderValue::from_static("http"),
    );
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
    Ok(())
}

fn check(head: &mut request::Parts) -> Result<(), Refused> {
    let hosts = head.headers.get_all(HOST).iter().count();
    if hosts > 1 || (hosts == 0 && head.version == Version::HTTP_11) {
        return Err(Refused::Malformed);
    }
    if head.method == Method::CONNECT {
        return Err(Refused::NotImplemented);
    }
    if !is_chunked(&head.headers) {
        // The proxy decodes no other coding (RFC 9112 §6.1).
        return Err(Refused::NotImplemented);
    }
    if head.uri.path_and_query().is_none() && head.uri.scheme().is_none() {
        return Err(Refused::Malformed);
    }
    if head.method == Method::OPTIONS || head.method == Method::TRACE {
        let forwards = head.headers.get(MAX_FORWARDS);
        let forwards: Option<u32> = forwards.and_then(|value| value.to_str().ok()?.parse().ok());
        match forwards {
            Some(0) if head.method == Method::OPTIONS => return Err(Refused::ForTheProxy),
            Some(0) => return Err(Refused::NotImplemented),
            Some(more) => {
                head.headers
                    .insert(MAX_FORWARDS, HeaderValue::from(more - 1));
            }
            None => {}
        }
    }
    Ok(())
}

/// Turns a response's head into the head for the client.
///
/// # Errors
/// The response has a transfer coding other than chunked, which the proxy does not decode (RFC 9112 §6.1).
pub(crate) fn forward_response(headers: &mut HeaderMap) -> Result<(), NotDecoded> {
    if headers.contains_key(TRANSFER_ENCODING) {
        if !is_chunked(headers) {
            return Err(NotDecoded);
        }
        // RFC 9112 §6.3: the transfer coding decides, and the length must not be forwarded.
        headers.remove(CONTENT_LENGTH);
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
/// message's length stays, whatever `Connection` says.
fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = tokens(headers, &CONNECTION)
        .filter_map(|token| token.parse().ok())
        .filter(|name| name != CONTENT_LENGTH && name != HOST)
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in [CONNECTION, TE, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
    headers.remove("keep-alive");
    headers.remove("proxy-connection");
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
    let mut list: Vec<String> = headers
        .get_all(&name)
        .iter()
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        .collect();
    list.push(value.to_owned());
    if let Ok(value) = HeaderValue::from_str(&list.join(", ")) {
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
                .header("transfer-encoding", "chunked")
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
            "transfer-encoding",
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

    #[test]
    fn requests_that_a_reverse_proxy_does_not_forward_are_refused() {
        let host = |request: request::Builder| forwarded(request.header("host", "x")).unwrap_err();
        assert_eq!(
            forwarded(Request::get("/")).unwrap_err(),
            Refused::Malformed
        );
        assert_eq!(
            host(Request::get("/").header("host", "y")),
            Refused::Malformed
        );
        assert_eq!(host(Request::connect("a:1")), Refused::NotImplemented);
        assert_eq!(
            host(Request::post("/").header("transfer-encoding", "gzip, chunked")),
            Refused::NotImplemented
        );
        assert_eq!(
            host(Request::options("*").header("max-forwards", "0")),
            Refused::ForTheProxy
        );
        let head = forwarded(
            Request::options("*")
                .header("host", "x")
                .header("max-forwards", "2"),
        );
        assert_eq!(head.unwrap().headers["max-forwards"], "1");
    }
}
