//! Finds out whether a client wants to send another request on its connection.

use http::header::CONNECTION;
use http::{HeaderMap, Request, Version};

/// Whether the client means to send another request on the connection (RFC 9112 §9.3).
pub(crate) fn wants_more<B>(request: &Request<B>) -> bool {
    let says = |option| has_option(request.headers(), option);
    if request.version() == Version::HTTP_11 {
        !says("close")
    } else {
        says("keep-alive") && !says("close")
    }
}

fn has_option(fields: &HeaderMap, option: &str) -> bool {
    let values = fields.get_all(CONNECTION).into_iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|one| one.trim().eq_ignore_ascii_case(option))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn version_and_connection_field_say_whether_the_client_wants_more() {
        for (version, connection, more) in [
            (Version::HTTP_11, None, true),
            (Version::HTTP_11, Some("keep-alive"), true),
            (Version::HTTP_11, Some("TE, Close"), false),
            (Version::HTTP_10, None, false),
            (Version::HTTP_10, Some("Keep-Alive"), true),
            (Version::HTTP_10, Some("keep-alive, close"), false),
        ] {
            let mut request = Request::new(());
            *request.version_mut() = version;
            if let Some(connection) = connection {
                let value = HeaderValue::from_static(connection);
                request.headers_mut().insert(CONNECTION, value);
            }
            assert_eq!(wants_more(&request), more, "{version:?} {connection:?}");
        }
    }
}
