use http::StatusCode;
use rstlab_wire::close::{Closed, Peer};

use crate::{Answer, Kind, Summary};

/// A summary in one line, as the process that answers tells it to the one that started it.
pub(crate) fn to_line(summary: &Summary) -> String {
    let Summary {
        answer,
        head_bytes,
        body_bytes,
        request_whole,
        response_whole,
        closed,
    } = *summary;
    let Closed {
        unread_bytes,
        unsent_bytes,
        lingered_bytes,
        peer,
    } = closed;
    let (status, kind) = answer.map_or((0, "none"), |answer| {
        (answer.status.as_u16(), kind_as_str(answer.kind))
    });
    let peer = peer.as_str();
    format!(
        "{status} {kind} {request_whole} {response_whole} {head_bytes} {body_bytes} {unread_bytes} {unsent_bytes} {lingered_bytes} {peer}"
    )
}

/// The summary in such a line; `None` if it is not one.
pub(crate) fn from_line(line: &str) -> Option<Summary> {
    let words: Vec<&str> = line.split(' ').collect();
    let [
        status,
        kind,
        request_whole,
        response_whole,
        numbers @ ..,
        peer,
    ] = words.as_slice()
    else {
        return None;
    };
    let numbers: Option<Vec<u64>> = numbers.iter().map(|word| word.parse().ok()).collect();
    let [
        head_bytes,
        body_bytes,
        unread_bytes,
        unsent_bytes,
        lingered_bytes,
    ] = numbers?[..]
    else {
        return None;
    };
    let kinds = [Kind::Response, Kind::Refusal, Kind::Health];
    let answer = match (*status, *kind) {
        ("0", "none") => None,
        (status, kind) => Some(Answer {
            status: status.parse::<StatusCode>().ok()?,
            kind: kinds.into_iter().find(|one| kind_as_str(*one) == kind)?,
        }),
    };
    Some(Summary {
        answer,
        head_bytes,
        body_bytes,
        request_whole: request_whole.parse().ok()?,
        response_whole: response_whole.parse().ok()?,
        closed: Closed {
            unread_bytes,
            unsent_bytes,
            lingered_bytes,
            peer: Peer::ALL.into_iter().find(|one| one.as_str() == *peer)?,
        },
    })
}

fn kind_as_str(kind: Kind) -> &'static str {
    match kind {
        Kind::Response => "response",
        Kind::Refusal => "refusal",
        Kind::Health => "health",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_gives_the_summary_back() {
        let answer = Answer {
            status: StatusCode::OK,
            kind: Kind::Response,
        };
        for peer in Peer::ALL {
            for answer in [Some(answer), None] {
                let summary = Summary {
                    answer,
                    head_bytes: 1,
                    body_bytes: 2,
                    request_whole: true,
                    response_whole: false,
                    closed: Closed {
                        unread_bytes: 3,
                        unsent_bytes: u64::MAX,
                        lingered_bytes: 5,
                        peer,
                    },
                };
                assert_eq!(from_line(&to_line(&summary)), Some(summary));
            }
        }
    }

    #[test]
    fn anything_else_is_none() {
        for line in [
            "",
            "ready",
            "200 response true false 1 2 3 4 open",
            "200 response true false 1 2 3 4 5 6 open",
            "200 response true false 1 2 3 4 -5 open",
            "200 other true false 1 2 3 4 5 open",
            "20 response true false 1 2 3 4 5 open",
            "200 response true false 1 2 3 4 5 shut",
            "200 response 1 0 1 2 3 4 5 open",
        ] {
            assert_eq!(from_line(line), None, "{line}");
        }
    }
}
