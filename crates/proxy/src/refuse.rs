//! Refuses requests whose head is malformed, and requests that a reverse proxy does not forward.

use std::net::Ipv6Addr;

use http::header::{HOST, HeaderValue, MAX_FORWARDS};
use http::uri::{Authority, Scheme};
use http::{Method, Version, request};

/// A request that is not forwarded because of its head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It is malformed; the text says where.
    Malformed(&'static str),
    /// A method or a transfer coding that a reverse proxy does not pass on.
    NotImplemented,
    /// `OPTIONS` with `Max-Forwards: 0`: for the proxy itself (RFC 9110 §7.6.2).
    ForTheProxy,
}

/// Checks a request's head; returns the host that an absolute-form target names.
///
/// The framing has been checked before: hyper reads through a [`Framing`](rstlab_wire::Framing).
pub(crate) fn check(head: &mut request::Parts) -> Result<Option<HeaderValue>, Refused> {
    // RFC 9112 §3.2.
    let mut hosts = head.headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if head.version == Version::HTTP_11 => {
            return Err(Refused::Malformed("the request has no Host field"));
        }
        (_, Some(_)) => return Err(Refused::Malformed("the request has two Host fields")),
        (Some(host), None) if !is_host(host.as_bytes()) => {
            return Err(Refused::Malformed("the Host field is malformed"));
        }
        _ => {}
    }
    // A server that takes fields for variables (RFC 3875 §4.1.18) cannot tell these from the fields with a hyphen.
    if head.headers.contains_key("content_length") || head.headers.contains_key("transfer_encoding")
    {
        return Err(Refused::Malformed("a framing field has an underscore"));
    }
    if head.method == Method::CONNECT {
        return Err(Refused::NotImplemented);
    }
    let target_host = check_target(head)?;
    if head.method == Method::OPTIONS || head.method == Method::TRACE {
        check_forwards(head)?;
    }
    Ok(target_host)
}

fn check_target(head: &request::Parts) -> Result<Option<HeaderValue>, Refused> {
    let malformed = Refused::Malformed("the target is malformed");
    // RFC 9112 §3.2.3, §3.2.4: authority-form is for CONNECT, asterisk-form for OPTIONS.
    let path = head.uri.path_and_query().ok_or(malformed)?;
    if path == "*" && head.method != Method::OPTIONS {
        return Err(malformed);
    }
    let Some(authority) = head.uri.authority() else {
        return Ok(None);
    };
    if ![Some(&Scheme::HTTP), Some(&Scheme::HTTPS)].contains(&head.uri.scheme()) {
        return Err(malformed);
    }
    // RFC 9110 §4.2.4: the user's name and password are not passed on.
    let (user, host) = authority
        .as_str()
        .rsplit_once('@')
        .unwrap_or(("", authority.as_str()));
    if user.contains('@') || !is_host(host.as_bytes()) {
        return Err(malformed);
    }
    HeaderValue::from_str(host).map(Some).map_err(|_| malformed)
}

/// Whether a value is a host, and maybe a port (RFC 9110 §7.2, RFC 3986 §3.2.2). A target of the scheme http has a host
/// that is not empty (RFC 9110 §4.2.1).
fn is_host(value: &[u8]) -> bool {
    let Ok(authority) = Authority::try_from(value) else {
        return false;
    };
    let host = authority.host();
    let is_name = match host.strip_prefix('[') {
        Some(address) => address
            .strip_suffix(']')
            .is_some_and(|address| address.parse::<Ipv6Addr>().is_ok()),
        None => !host.is_empty() && !host.contains(['[', ']']),
    };
    // If there is an @, the value does not begin with the host, or the @ is behind the host.
    let port = match authority.as_str().strip_prefix(host) {
        Some("" | ":") => return is_name,
        Some(port) => port.strip_prefix(':').unwrap_or_default(),
        None => return false,
    };
    is_name && is_digits(port) && port.parse::<u16>().is_ok()
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Checks and lowers `Max-Forwards` (RFC 9110 §7.6.2).
fn check_forwards(head: &mut request::Parts) -> Result<(), Refused> {
    let mut values = head.headers.get_all(MAX_FORWARDS).iter();
    let Some(value) = values.next() else {
        return Ok(());
    };
    let digits = value.to_str().ok().filter(|text| is_digits(text));
    let (Some(digits), None) = (digits, values.next()) else {
        return Err(Refused::Malformed("the Max-Forwards field is malformed"));
    };
    // A larger number may be lowered to the largest that the proxy knows.
    match digits.parse().unwrap_or(u32::MAX) {
        0 if head.method == Method::OPTIONS => Err(Refused::ForTheProxy),
        0 => Err(Refused::NotImplemented),
        more => {
            head.headers
                .insert(MAX_FORWARDS, HeaderValue::from(more - 1));
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn refusal(request: request::Builder) -> Refused {
        let (mut head, ()) = request.body(()).unwrap().into_parts();
        check(&mut head).unwrap_err()
    }

    #[test]
    fn requests_that_a_reverse_proxy_does_not_forward_are_refused() {
        let host = |request: request::Builder| refusal(request.header("host", "x"));
        assert!(matches!(refusal(Request::get("/")), Refused::Malformed(_)));
        assert!(matches!(host(Request::get("*")), Refused::Malformed(_)));
        assert_eq!(host(Request::connect("a:1")), Refused::NotImplemented);
        assert_eq!(
            host(Request::options("*").header("max-forwards", "0")),
            Refused::ForTheProxy
        );
    }

    #[test]
    fn a_host_is_a_name_or_an_address_and_maybe_a_port() {
        for good in [
            "a",
            "a_b.c:",
            "a:65535",
            "192.0.2.1:80",
            "[::1]",
            "[2001:db8::1]:80",
            "a,b",
        ] {
            assert!(is_host(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            ":80",
            "a b",
            "a/b",
            "a@b",
            "b@b",
            "a:80:90",
            "a:+80",
            "a:65536",
            "a:b",
            "[::1",
            "[a]",
            "[::1]a",
            "a[::1]",
            "::1",
            "a%41",
            "\"><script>",
            "\u{e9}",
        ] {
            assert!(!is_host(bad.as_bytes()), "{bad}");
        }
    }
}
