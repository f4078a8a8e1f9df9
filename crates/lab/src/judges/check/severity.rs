//! How bad a lost response is, by who loses it: the one table.

use schemars::JsonSchema;
use serde::Serialize;
use strum::{AsRefStr, VariantArray};

use super::trial::Model;

/// How bad it is that responses are lost, from the mildest to the worst.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    JsonSchema,
    AsRefStr,
    VariantArray,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Severity {
    /// Requests that few clients send.
    Low,
    /// Bodies over a bound, refused uploads, or usual requests of clients that stop at a write error.
    Medium,
    /// Usual requests of clients that read late: slow networks, proxies.
    High,
    /// Usual requests of ordinary clients, or the next request on a kept connection.
    Critical,
}

/// What kind of request it is, as far as its severity goes.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    JsonSchema,
    AsRefStr,
    VariantArray,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum RequestKind {
    /// The next request on a kept connection, once the first one was answered.
    Next,
    /// A body of up to 64 KiB.
    Usual,
    /// A body of more than 64 KiB, or one that takes longer than 2 s: the bounds within which careful servers read on.
    OverBound,
    /// An upload that the server answers before it has come.
    Refused,
    /// HTTP/1.0, GET with a body, trailers, pipelining, half-close.
    Rare,
}

/// The largest body of a usual request, in bytes.
const MAX_USUAL_BODY: u64 = 64 * 1024;

impl RequestKind {
    /// A request of the path's own with a body of so many bytes.
    pub(super) const fn of_body(bytes: u64) -> Self {
        if bytes > MAX_USUAL_BODY {
            Self::OverBound
        } else {
            Self::Usual
        }
    }
}

impl Severity {
    /// How bad it is if a client loses the response to such a request.
    pub(super) const fn of(requests: RequestKind, client: Model) -> Self {
        match (requests, client) {
            (RequestKind::Next, _) | (RequestKind::Usual, Model::Ordinary) => Self::Critical,
            (RequestKind::Usual, Model::ReadsOn) => Self::High,
            (RequestKind::Usual, Model::StopsAtWriteError)
            | (RequestKind::OverBound | RequestKind::Refused, _) => Self::Medium,
            (RequestKind::Rare, _) => Self::Low,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_loses_which_request_says_how_bad_it_is() {
        let rows: Vec<_> = RequestKind::VARIANTS
            .iter()
            .map(|requests| {
                let of = |client: &Model| Severity::of(*requests, *client).as_ref().to_owned();
                let severities: Vec<_> = Model::VARIANTS.iter().map(of).collect();
                format!("{}: {}", requests.as_ref(), severities.join(", "))
            })
            .collect();
        assert_eq!(
            rows,
            [
                "next: critical, critical, critical",
                "usual: critical, high, medium",
                "over-bound: medium, medium, medium",
                "refused: medium, medium, medium",
                "rare: low, low, low",
            ]
        );
        let bound = RequestKind::of_body(MAX_USUAL_BODY);
        let beyond = RequestKind::of_body(MAX_USUAL_BODY + 1);
        assert_eq!(
            (bound, beyond),
            (RequestKind::Usual, RequestKind::OverBound)
        );
    }
}
