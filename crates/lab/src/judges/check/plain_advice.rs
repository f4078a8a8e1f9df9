//! What to do about lost responses, in the words of the server that is known by its answers.

use super::drain::Drain;
use super::severity::RequestKind;
use rstlab_witness::Cause;

/// What tells which server it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct ServerTraits<'a> {
    /// `Server` of the plain answer.
    pub(super) server: Option<&'a str>,
    /// `X-Powered-By` of the plain answer.
    pub(super) powered_by: Option<&'a str>,
    /// How far it reads on after an answer.
    pub(super) drain: &'a Drain,
}

/// A server, and what to do about responses that it loses.
struct KnownServer {
    /// How `Server` or `X-Powered-By` begins, in small letters; empty for a server that is known by its bound alone.
    token: &'static str,
    /// Bytes that it reads on after an answer; `None` if that does not matter.
    bound: Option<u64>,
    what_to_do: &'static str,
}

/// The first row that fits is taken. docs/check.md has the source of each.
const SERVERS: [KnownServer; 12] = [
    KnownServer {
        token: "gunicorn",
        bound: Some(64 * 1024),
        what_to_do: "gunicorn from 26 drains 65,536 bytes or for 2 s, and then resets (workers sync and gthread): let \
                     the app read the body (Flask: request.get_data()) before it answers.",
    },
    KnownServer {
        token: "gunicorn",
        bound: None,
        what_to_do: "gunicorn: let the app read the body (Flask: request.get_data()) before it answers, or go to \
                     gunicorn 26 or newer with the workers sync or gthread, which drain 65,536 bytes or for 2 s.",
    },
    KnownServer {
        token: "uvicorn",
        bound: None,
        what_to_do: "uvicorn has no setting for this: let the app read the body (Starlette, FastAPI: await \
                     request.body()) before it answers.",
    },
    KnownServer {
        token: "express",
        bound: None,
        what_to_do: "Node: let the handler read the body before it answers: req.resume(), and the answer in its 'end' \
                     event.",
    },
    KnownServer {
        token: "apache-coyote",
        bound: None,
        what_to_do: "Tomcat: raise maxSwallowSize of the Connector (Spring Boot: server.tomcat.max-swallow-size; -1 \
                     is without limit), or let the servlet read the body before it answers.",
    },
    KnownServer {
        token: "puma",
        bound: None,
        what_to_do: "Puma reads a body before it calls the app; what it refuses itself it answers early: raise \
                     http_content_length_limit, or let the proxy in front refuse large bodies.",
    },
    KnownServer {
        token: "nginx",
        bound: None,
        what_to_do: "nginx answers here, and reads on after its own answers (lingering_close, lingering_time, \
                     lingering_timeout): check the server behind it directly, by the address in proxy_pass.",
    },
    KnownServer {
        token: "haproxy",
        bound: None,
        what_to_do: "HAProxy answers here: check the server behind it directly; HAProxy itself reads on after its own \
                     answers from 3.0 on.",
    },
    KnownServer {
        token: "apache",
        bound: None,
        what_to_do: "Apache answers here, and reads on after its own answers: check the server behind it directly, \
                     by the address in ProxyPass.",
    },
    KnownServer {
        token: "",
        bound: Some(64 * 1024),
        what_to_do: "A bound of 64 KiB is that of gunicorn from 26: let the app read the body before it answers.",
    },
    KnownServer {
        token: "",
        bound: Some(256 * 1024),
        what_to_do: "A bound of 256 KiB is that of Go's net/http: let the handler read the body before it answers \
                     (io.Copy(io.Discard, r.Body), with http.MaxBytesReader around it).",
    },
    KnownServer {
        token: "",
        bound: Some(2 * 1024 * 1024),
        what_to_do: "A bound of 2 MiB is that of Tomcat: raise maxSwallowSize of the Connector (Spring Boot: \
                     server.tomcat.max-swallow-size; -1 is without limit), or let the servlet read the body.",
    },
];

/// Said of usual requests: what proxies in front can do, and what they cannot.
const IN_FRONT: &str = "In front of it nginx's proxy_request_buffering on and HAProxy's option http-buffer-request \
                        send head and body together: that helps as long as the body fits the server's first read, \
                        and cures nothing beyond.";

/// What to do about lost responses to such requests; `cause` is the kernel's word on the resets.
pub(super) fn advice(
    requests: RequestKind,
    server: &ServerTraits<'_>,
    cause: Option<Cause>,
) -> String {
    let usual = cause.filter(|cause| *cause != Cause::Unknown);
    let general = usual.unwrap_or(Cause::UnreadAtClose).advice();
    let known = server.known().map(|known| known.what_to_do);
    let text = known.unwrap_or(general);
    match requests {
        RequestKind::Usual => format!("{text} {IN_FRONT}"),
        _ => text.to_owned(),
    }
}

/// The most bytes that a server commonly takes with one read, and the searches' precision.
const LAST_READ: u64 = 128 * 1024;

impl ServerTraits<'_> {
    fn known(&self) -> Option<&'static KnownServer> {
        let fields = [self.server, self.powered_by];
        SERVERS.iter().find(|known| {
            let mut given = fields.into_iter().flatten();
            let begins = |text: &str| text.to_ascii_lowercase().starts_with(known.token);
            let is_named = known.token.is_empty() || given.any(begins);
            is_named && known.bound.is_none_or(|bound| self.drains(bound))
        })
    }

    /// Whether the server was seen to read so many bytes, and not much more.
    fn drains(&self, bytes: u64) -> bool {
        self.drain.bytes.is_some_and(|bound| {
            let reset = bound.less_than.unwrap_or(u64::MAX);
            // A server's last read may go beyond its bound.
            bound.at_least >= bytes && reset <= bytes + LAST_READ
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::drain::{Bound, DrainKind};
    use super::*;

    /// The advice for a server that names itself so and reads on for so many bytes.
    fn told(server: Option<&str>, powered_by: Option<&str>, bytes: Option<u64>) -> String {
        let bound = bytes.map(|bytes| Bound {
            at_least: bytes,
            less_than: Some(bytes + 1),
        });
        let drain = Drain::new(DrainKind::ReadsOn, bound, None);
        let server = ServerTraits {
            server,
            powered_by,
            drain: &drain,
        };
        advice(RequestKind::Refused, &server, None)
    }

    #[test]
    fn a_server_is_known_by_its_name_or_by_its_bound() {
        const KIB: u64 = 1024;
        for (server, powered_by, bytes, part) in [
            (Some("gunicorn"), None, None, "or go to gunicorn 26"),
            (
                Some("gunicorn/20.0.4"),
                None,
                Some(1),
                "or go to gunicorn 26",
            ),
            (
                Some("gunicorn"),
                None,
                Some(64 * KIB),
                "gunicorn from 26 drains",
            ),
            (Some("uvicorn"), None, None, "await request.body()"),
            (None, Some("Express"), None, "req.resume()"),
            (Some("nginx/1.22.1"), Some("Express"), None, "req.resume()"),
            (
                Some("nginx/1.22.1"),
                None,
                None,
                "the address in proxy_pass",
            ),
            (Some("Apache/2.4.57 (Debian)"), None, None, "ProxyPass"),
            (Some("Apache-Coyote/1.1"), None, None, "maxSwallowSize"),
            (Some("mine"), None, Some(64 * KIB), "gunicorn from 26"),
            (None, None, Some(256 * KIB), "Go's net/http"),
            (None, None, Some(2048 * KIB), "Tomcat"),
            (
                None,
                None,
                Some(1000 * KIB),
                "Let the server read the whole body",
            ),
            (None, None, None, "Let the server read the whole body"),
        ] {
            let told = told(server, powered_by, bytes);
            assert!(
                told.contains(part),
                "{server:?} {powered_by:?} {bytes:?}: {told}"
            );
        }
    }

    #[test]
    fn only_for_usual_requests_a_proxy_in_front_may_help() {
        let drain = Drain::new(DrainKind::ResetsAtOnce, None, None);
        let server = ServerTraits {
            server: None,
            powered_by: None,
            drain: &drain,
        };
        let helps = |requests| advice(requests, &server, None).contains("proxy_request_buffering");
        assert!(helps(RequestKind::Usual));
        assert!(!helps(RequestKind::OverBound));
    }
}
