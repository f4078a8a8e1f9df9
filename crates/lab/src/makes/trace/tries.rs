//! The outcome that `rstlab trace` repeats its request for, and how many tries that took.

use rstlab_upstream::{BodyKind, CloseKind, Mode, ResponseKind};
use rstlab_witness::Record;

/// Largest number of requests for one outcome.
const MAX_TRIES: usize = 20;

/// How a traced request ended for its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TraceOutcome {
    /// Its client did not get the whole response.
    Cut,
    /// Its client got the whole response, and the upstream connection was reset.
    Harmless,
    /// Its client got the whole response, and no connection was reset.
    Whole,
}

/// The words of `--until`; `any` asks for no outcome.
pub(super) const UNTIL: [(&str, Option<TraceOutcome>); 4] = [
    ("cut", Some(TraceOutcome::Cut)),
    ("harmless", Some(TraceOutcome::Harmless)),
    ("whole", Some(TraceOutcome::Whole)),
    ("any", None),
];

impl TraceOutcome {
    /// The outcome that the mode is there to show.
    pub(super) fn of_mode(mode: Mode) -> Self {
        let row = mode.row();
        match (row.close, row.body, row.response) {
            (CloseKind::Delay, ..) => Self::Harmless,
            (CloseKind::Linger, ..)
            | (CloseKind::Immediate, BodyKind::Drain | BodyKind::Cap, ResponseKind::Whole) => {
                Self::Whole
            }
            (CloseKind::Immediate | CloseKind::Abort | CloseKind::OnArrival, ..) => Self::Cut,
        }
    }

    fn of(record: &Record) -> Self {
        match record.outcome.as_deref() {
            Some("whole") if record.evidence.reset_was_seen() => Self::Harmless,
            Some("whole") => Self::Whole,
            _ => Self::Cut,
        }
    }

    fn meaning(self) -> &'static str {
        match self {
            Self::Cut => "cut",
            Self::Harmless => "whole in spite of a reset",
            Self::Whole => "whole without a reset",
        }
    }
}

/// The requests sent so far.
#[derive(Debug)]
pub(super) struct Tries {
    wanted: Option<TraceOutcome>,
    outcomes: Vec<TraceOutcome>,
}

impl Tries {
    pub(super) fn new(wanted: Option<TraceOutcome>) -> Self {
        Self {
            wanted,
            outcomes: Vec::new(),
        }
    }

    /// Counts a request, and says whether it was the last.
    pub(super) fn end_with(&mut self, record: &Record) -> bool {
        self.outcomes.push(TraceOutcome::of(record));
        self.succeeded() || self.outcomes.len() == MAX_TRIES
    }

    /// Whether the last request ended as wanted.
    pub(super) fn succeeded(&self) -> bool {
        self.wanted.is_none() || self.outcomes.last() == self.wanted.as_ref()
    }

    /// How many requests it took, and how the others ended.
    pub(super) fn text(&self) -> Option<String> {
        let wanted = self.wanted?;
        let count = self.outcomes.len();
        let others = UNTIL.iter().filter_map(|(word, outcome)| {
            let same = self.outcomes.iter().filter(|it| Some(**it) == *outcome);
            let number = same.count();
            (number > 0 && *outcome != Some(wanted)).then(|| format!("{number} {word}"))
        });
        let others: Vec<_> = others.collect();
        Some(match (self.succeeded(), others.join(", ")) {
            (true, none) if none.is_empty() => {
                format!("{count}, until the response was {}", wanted.meaning())
            }
            (true, others) => format!(
                "{count}, until the response was {}; before: {others}",
                wanted.meaning()
            ),
            (false, others) => format!(
                "{count}, and no response was {}: {others}",
                wanted.meaning()
            ),
        })
    }

    /// What could lead to the outcome that did not come.
    pub(super) fn advice(&self) -> Option<&'static str> {
        if self.succeeded() {
            return None;
        }
        let resets = self.outcomes.contains(&TraceOutcome::Harmless);
        Some(match self.wanted? {
            TraceOutcome::Cut if resets => {
                "a larger --response-bytes, because a response that fits in the kernel's buffers has arrived before \
                 the RST; more memory for TCP (sysctl net.ipv4.tcp_mem)"
            }
            TraceOutcome::Cut => {
                "a --body over 0; a longer --gap, such as 100ms, because an upstream that is behind reads head and body \
                 together; --mode lazy"
            }
            TraceOutcome::Harmless => "--mode delay; a smaller --response-bytes, such as 1024",
            TraceOutcome::Whole => "--mode drain; --gap 0ms",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tries(wanted: Option<TraceOutcome>, outcomes: &[TraceOutcome]) -> Tries {
        Tries {
            wanted,
            outcomes: outcomes.to_vec(),
        }
    }

    #[test]
    fn each_mode_is_traced_until_it_shows_its_own_outcome() {
        let wanted = Mode::ALL.map(|mode| (mode.as_str(), TraceOutcome::of_mode(mode).meaning()));
        let (cut, reset, whole) = ("cut", "whole in spite of a reset", "whole without a reset");
        assert_eq!(
            wanted,
            [
                ("lazy", cut),
                ("drain", whole),
                ("cap", whole),
                ("delay", reset),
                ("linger", whole),
                ("abort", cut),
                ("truncate", cut),
                ("idle-close", cut),
                ("kill", cut),
            ]
        );
    }

    #[test]
    fn the_number_of_tries_is_told_with_how_the_others_ended() {
        use TraceOutcome::{Cut, Harmless, Whole};
        let text = |outcomes: &[TraceOutcome]| tries(Some(Cut), outcomes).text().unwrap();
        assert_eq!(text(&[Cut]), "1, until the response was cut");
        assert_eq!(
            text(&[Whole, Harmless, Whole, Cut]),
            "4, until the response was cut; before: 1 harmless, 2 whole"
        );
        assert_eq!(
            text(&[Whole, Harmless]),
            "2, and no response was cut: 1 harmless, 1 whole"
        );
        assert_eq!(tries(None, &[Whole]).text(), None);
    }

    #[test]
    fn advice_follows_from_how_the_tries_ended() {
        use TraceOutcome::{Cut, Harmless, Whole};
        let advice = |wanted, outcomes: &[TraceOutcome]| tries(wanted, outcomes).advice();
        assert_eq!(advice(Some(Cut), &[Whole, Cut]), None);
        assert_eq!(advice(None, &[Whole]), None);
        assert!(
            advice(Some(Cut), &[Harmless, Whole])
                .unwrap()
                .contains("--response-bytes")
        );
        assert!(advice(Some(Cut), &[Whole]).unwrap().contains("--gap"));
        assert!(
            advice(Some(Harmless), &[Cut])
                .unwrap()
                .contains("--mode delay")
        );
        assert!(
            advice(Some(Whole), &[Cut])
                .unwrap()
                .contains("--mode drain")
        );
    }
}
