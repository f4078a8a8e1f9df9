//! What a server does with a body that comes after its answer, in numbers and in a sentence.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use rstlab_cli::grouped;

/// Whether and how far the server reads on after it has answered a request whose body has not come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Drain {
    /// What the server does with the body.
    pub kind: DrainKind,
    /// Bytes the server reads on for.
    pub bytes: Option<Bound>,
    /// Milliseconds until a reset while single bytes come.
    pub milliseconds: Option<Bound>,
    /// The same in a sentence.
    pub sentence: String,
}

/// A bound, as an interval between what was read and what was answered with a reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Bound {
    /// So much was still read.
    pub at_least: u64,
    /// So much was answered with a reset; null if the search ended without one.
    pub less_than: Option<u64>,
}

/// What a server does with a body that comes after its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DrainKind {
    /// The server does not answer before the body has come.
    ReadsFirst,
    /// The server resets the connection even if nothing comes.
    Aborts,
    /// The first byte is answered with a reset.
    ResetsAtOnce,
    /// The server reads on, within the bounds.
    ReadsOn,
    /// The server neither reads nor closes for a time: `milliseconds` says how long.
    Holds,
    /// The server's answer to a head alone does not come whole.
    Unknown,
    /// The server's answers take too long for a search.
    NotSearched,
}

impl Drain {
    pub(in super::super) fn new(
        kind: DrainKind,
        bytes: Option<Bound>,
        milliseconds: Option<Bound>,
    ) -> Self {
        Self {
            kind,
            bytes,
            milliseconds,
            sentence: sentence(kind, bytes, milliseconds),
        }
    }
}

/// Whether an interval is narrow enough to end the search: a tenth of its end, or as little as this clock can tell.
pub(super) fn is_narrow(low: Duration, high: Duration) -> bool {
    high.saturating_sub(low) <= (high / 10).max(Duration::from_millis(20))
}

fn sentence(kind: DrainKind, bytes: Option<Bound>, milliseconds: Option<Bound>) -> String {
    match kind {
        DrainKind::ReadsFirst => "The server reads the body before it answers.".to_owned(),
        DrainKind::Aborts => "The server resets the connection after its answer, whether or not a body comes.".to_owned(),
        DrainKind::ResetsAtOnce => {
            "The server answers before the body has come and does not read on: the first byte that comes later is \
             answered with a reset."
                .to_owned()
        }
        DrainKind::ReadsOn => {
            let is_bounded = [bytes, milliseconds]
                .iter()
                .flatten()
                .any(|bound| bound.less_than.is_some());
            let bytes = bytes.map(|bound| {
                let read = grouped(bound.at_least);
                match bound.less_than {
                    Some(reset) if reset - bound.at_least > bound.at_least / 50 + 1 => {
                        format!("up to between {read} and {} bytes", grouped(reset))
                    }
                    Some(_) if bound.at_least == 1 => "1 byte".to_owned(),
                    Some(_) => format!("up to {read} bytes"),
                    None => format!("more than {read} bytes"),
                }
            });
            let bounds: Vec<String> = bytes.into_iter().chain(milliseconds.map(seconds)).collect();
            let then = if is_bounded { ", then resets" } else { "" };
            let bounds = bounds.join(" or for ");
            format!("The server answers before the body has come and drains {bounds}{then}.")
        }
        DrainKind::Holds => match milliseconds {
            Some(bound) => format!(
                "The server answers before the body has come, and then neither reads nor closes for {}.",
                seconds(bound)
            ),
            None => "The server answers before the body has come, and then does not read.".to_owned(),
        },
        DrainKind::Unknown => {
            "How far the server reads on is not known: its answer to a head alone does not come whole."
                .to_owned()
        }
        DrainKind::NotSearched => {
            "How far the server reads on was not searched: its answers take too long for the time of the check."
                .to_owned()
        }
    }
}

fn seconds(bound: Bound) -> String {
    let low = Duration::from_millis(bound.at_least);
    let Some(high) = bound.less_than.map(Duration::from_millis) else {
        return format!("more than {:.1} s", low.as_secs_f64());
    };
    match is_narrow(low, high) {
        true => format!("{:.1} s", ((low + high) / 2).as_secs_f64()),
        false => format!(
            "between {:.1} and {:.1} s",
            low.as_secs_f64(),
            high.as_secs_f64()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_as_precisely_as_it_is_known() {
        for (at_least, less_than, said) in [
            (1950, Some(2040), "2.0 s"),
            (0, Some(12), "0.0 s"),
            (1000, Some(1400), "between 1.0 and 1.4 s"),
            (5490, None, "more than 5.5 s"),
        ] {
            let bound = Bound {
                at_least,
                less_than,
            };
            assert_eq!(seconds(bound), said);
        }
    }
}
