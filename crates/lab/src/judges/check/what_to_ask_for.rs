//! Says what to ask for instead, if the answer to the plain request is none that a reset could cut.

use super::probe::Plain;
use crate::shared::printable::printable;
use rstlab_cli::grouped;

/// A response up to this size, in bytes, fits into the client's socket, where no reset can take it.
const FITS: u64 = 16 * 1024;

/// The longest value of a field that is printed, in characters.
const MAX_SHOWN: usize = 100;

/// What to ask for; `None` if the answer will do. On a unix socket no reset takes bytes that were written, whatever the
/// size of the response.
pub(super) fn what_to_ask_for(plain: &Plain, is_unix: bool) -> Option<String> {
    let value = |field: &Option<String>| {
        field
            .as_deref()
            .map_or("nowhere".to_owned(), |value| printable(value, MAX_SHOWN))
    };
    let small = is_too_small(plain, is_unix).then(|| too_small(plain));
    let advice = match plain.status {
        // The check ends with this status, unless it was asked for.
        401 | 429 if plain.expected_statuses.contains(&plain.status) => return small,
        300..=399 => format!(
            "This is a redirect to {}: check the URL where it leads.",
            value(&plain.location)
        ),
        401 | 403 | 407 => "The server wants to know who asks: give --user NAME:PASSWORD or \
                            --header 'Authorization: ...'."
            .to_owned(),
        404 | 410 => "The server has no such path: give one that it has.".to_owned(),
        405 | 501 => {
            "The path does not take this method: give another one with --method.".to_owned()
        }
        429 => "The server limits how many requests it takes: give --rate.".to_owned(),
        400 | 411 | 415 | 422 => {
            "The app does not take this request: give it a body with --data and --content-type, \
                                  or a field with --header."
                .to_owned()
        }
        500..=599 => "This is an error of the server: its log says more.".to_owned(),
        _ => match &plain.content_encoding {
            Some(encoding) if encoding != "identity" => format!(
                "The response is compressed ({}): give --header 'Accept-Encoding: identity'.",
                printable(encoding, MAX_SHOWN),
            ),
            _ => return small,
        },
    };
    Some(match small {
        Some(small) => format!("{advice} {small}"),
        None => advice,
    })
}

/// Whether the response fits into the client's socket.
pub(super) fn is_too_small(plain: &Plain, is_unix: bool) -> bool {
    !is_unix && plain.body_bytes.is_some_and(|bytes| bytes < FITS)
}

fn too_small(plain: &Plain) -> String {
    format!(
        "A response of {} bytes fits into the client's socket, where no reset can take it: ask for a path with more \
         than {} bytes.",
        grouped(plain.body_bytes.unwrap_or_default()),
        grouped(FITS)
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_answer_that_no_reset_could_cut_comes_with_what_to_ask_for() {
        for (status, bytes, encoding, part) in [
            (302, 0, None, "a redirect to /login?: check"),
            (302, 0, None, "A response of 0 bytes fits"),
            (401, 2, None, "--user NAME:PASSWORD"),
            (404, 20_000, None, "no such path"),
            (405, 0, None, "--method"),
            (415, 0, None, "--data and --content-type"),
            (429, 0, None, "--rate"),
            (500, 0, None, "its log"),
            (200, 2, None, "A response of 2 bytes fits"),
            (200, 2, Some("identity"), "A response of 2 bytes fits"),
            (200, 16_383, Some("gzip"), "identity'. A response of 16,383"),
            (
                200,
                16_384,
                Some("gzip"),
                "(gzip): give --header 'Accept-Encoding: identity'",
            ),
            (200, 16_384, None, ""),
        ] {
            let plain = Plain {
                status,
                body_bytes: Some(bytes),
                content_encoding: encoding.map(str::to_owned),
                location: Some("/login\u{1b}".to_owned()),
                ..Plain::of_a_server_that_takes(Duration::ZERO, false)
            };
            let advice = what_to_ask_for(&plain, false);
            assert_eq!(advice.is_some(), !part.is_empty(), "{status} {bytes}");
            assert!(
                advice.unwrap_or_default().contains(part),
                "{status} {bytes}"
            );
            let on_unix = what_to_ask_for(&plain, true).unwrap_or_default();
            assert!(!on_unix.contains("fits"), "{on_unix}");
        }
    }
}
