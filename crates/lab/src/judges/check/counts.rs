//! Counts of trials by outcome.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};
use serde_json::{Map, json};
use strum::{EnumMessage, VariantArray};

use super::trial::{Trial, TrialOutcome, is_turned_away};

/// Trials counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Counts {
    /// All of them; the sum of the outcomes.
    pub trials: u64,
    /// How they ended: each as exactly one of these.
    pub outcomes: Outcomes,
    /// Of whole-then-reset, those whose response was in the client's receive queue before reading began: the reset
    /// could not have taken it.
    pub fits: u64,
    /// Of the lost ones, those whose first response came whole: that to the next request on the connection was lost.
    pub lost_next: u64,
    /// Those whose response had another status than is expected.
    pub other_statuses: u64,
    /// Of these, the ones with 401 or 429: they say nothing about the answer that was asked for.
    pub turned_away: u64,
    /// Those whose own timing was late, because this machine was busy: a pause took more than twice its time and 2 ms.
    pub late: u64,
    /// Of the late ones, those that lost their response.
    pub late_lost: u64,
    /// Of the whole ones, those whose connection the server had not closed.
    pub left_open: u64,
    /// Bytes that the cut responses are missing: of the announced length, or of that of the plain answer.
    pub lost_bytes: u64,
    /// Length of the longest response's body that came.
    pub body_bytes: u64,
}

/// A number for each outcome.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcomes([u64; TrialOutcome::VARIANTS.len()]);

impl Outcomes {
    /// How many ended so.
    pub fn of(&self, outcome: TrialOutcome) -> u64 {
        self.0[outcome as usize]
    }

    /// How many lost their response, or its end.
    pub fn lost(&self) -> u64 {
        self.sum(TrialOutcome::is_lost)
    }

    /// How many met a reset, harmful or not.
    pub fn resets(&self) -> u64 {
        self.sum(TrialOutcome::is_reset)
    }

    fn sum(&self, counts: impl Fn(TrialOutcome) -> bool) -> u64 {
        let counted = TrialOutcome::VARIANTS.iter().filter(|one| counts(**one));
        counted.map(|outcome| self.of(*outcome)).sum()
    }

    pub(super) fn add(&mut self, outcome: TrialOutcome) {
        self.0[outcome as usize] += 1;
    }
}

impl Serialize for Outcomes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let names = TrialOutcome::VARIANTS.iter().map(AsRef::<str>::as_ref);
        serializer.collect_map(names.zip(self.0))
    }
}

impl JsonSchema for Outcomes {
    fn schema_name() -> Cow<'static, str> {
        "Outcomes".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let names: Vec<_> = TrialOutcome::VARIANTS
            .iter()
            .map(AsRef::<str>::as_ref)
            .collect();
        counts_schema::<TrialOutcome>(0, &names)
    }
}

/// The schema of an object with a number for each variant, whose description is the variant's documentation.
pub(super) fn counts_schema<E>(minimum: u64, required: &[&str]) -> Schema
where
    E: AsRef<str> + EnumMessage + VariantArray,
{
    let counts = E::VARIANTS.iter().map(|one| {
        let about = one.get_documentation();
        let count = json!({"type": "integer", "minimum": minimum, "description": about});
        (one.as_ref().to_owned(), count)
    });
    let counts: Map<_, _> = counts.collect();
    json_schema!({
        "type": "object",
        "additionalProperties": false,
        "required": required,
        "properties": counts,
    })
}

impl Counts {
    pub(super) fn add(&mut self, trial: &Trial) {
        self.trials += 1;
        self.outcomes.add(trial.outcome);
        self.fits += u64::from(trial.fits && trial.outcome == TrialOutcome::WholeThenReset);
        let is_turned_away = trial.is_other_status && trial.status.is_some_and(is_turned_away);
        self.lost_next += u64::from(trial.is_next_lost);
        self.other_statuses += u64::from(trial.is_other_status);
        self.turned_away += u64::from(is_turned_away);
        self.late += u64::from(trial.is_late);
        self.late_lost += u64::from(trial.is_late && trial.outcome.is_lost());
        self.left_open += u64::from(trial.still_open);
        self.lost_bytes = self.lost_bytes.saturating_add(trial.lost_bytes);
        self.body_bytes = self.body_bytes.max(trial.body_bytes);
    }

    /// Adds the trials of another client.
    pub(super) fn merge(&mut self, other: &Self) {
        self.trials += other.trials;
        for (count, more) in self.outcomes.0.iter_mut().zip(other.outcomes.0) {
            *count += more;
        }
        self.fits += other.fits;
        self.lost_next += other.lost_next;
        self.other_statuses += other.other_statuses;
        self.turned_away += other.turned_away;
        self.late += other.late;
        self.late_lost += other.late_lost;
        self.left_open += other.left_open;
        self.lost_bytes = self.lost_bytes.saturating_add(other.lost_bytes);
        self.body_bytes = self.body_bytes.max(other.body_bytes);
    }
}
