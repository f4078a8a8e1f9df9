//! Judges how a trial ended.

use super::steps::{Client, ClientEnd};
use crate::judges::check::probe::Plain;
use crate::judges::check::reasons::Made;
use crate::judges::check::response::Response;
use crate::judges::check::trial::{Trial, TrialOutcome, is_turned_away};

impl Client<'_> {
    /// The value of a field of the first response, as [`Responses::field`](crate::judges::check::response::Responses::field).
    pub(in super::super) fn field(&self, name: &str) -> Option<String> {
        self.responses.field(name)
    }

    /// The trial's outcome; `plain` is the answer to the same request without a body.
    pub(in super::super) fn trial(self, plain: Option<&Plain>) -> Trial {
        let (outcome, lost_bytes, bad) = self.judge(plain);
        let whole = self.responses.whole();
        let cut = self.responses.current();
        let first = whole.first().or(cut).map(|one| one.status);
        let other = plain.and_then(|plain| self.other_status(plain));
        let is_whole_before = self.script.responses > 1 && !whole.is_empty();
        Trial {
            outcome,
            status: other.or(first),
            is_other_status: other.is_some(),
            is_next_lost: is_whole_before
                && outcome.is_lost()
                && outcome != TrialOutcome::GatewayError,
            is_late: self.is_late,
            body_bytes: whole.iter().chain(cut).map(|one| one.body_bytes).sum(),
            lost_bytes,
            fits: whole.last().is_some_and(|last| last.end <= self.here),
            still_open: self.is_left_open(),
            failure: self.failure,
            bad,
            made: self.socket.local_port().map(|port| Made {
                port,
                at: self.made,
            }),
            first_byte: self.first_byte,
            beginning: self.responses.beginning().into(),
        }
    }

    /// The first status that is not as expected. Of another path or method nothing is expected, but 401 and 429 in place
    /// of its answer are no answer of the path.
    fn other_status(&self, plain: &Plain) -> Option<u16> {
        let mut statuses = self.responses.whole().iter().map(|one| one.status);
        statuses.find(|status| match self.script.same_path {
            true => !plain.expected_statuses.contains(status),
            false => is_turned_away(*status) && plain.early_path_status != Some(*status),
        })
    }

    /// Whether a gateway's error came whole in place of the answer.
    fn is_gateway_error(&self, plain: &Plain) -> bool {
        let is_error = |status: u16| matches!(status, 502..=504);
        let is_usual = |status| match self.script.same_path {
            true => plain.expected_statuses.contains(&status),
            false => is_error(plain.status) || plain.early_path_status.is_some_and(is_error),
        };
        let mut statuses = self.responses.whole().iter().map(|one| one.status);
        statuses.any(|status| is_error(status) && !is_usual(status))
    }

    fn judge(&self, plain: Option<&Plain>) -> (TrialOutcome, u64, Option<String>) {
        if let Some(ClientEnd::Bad(text)) = &self.end {
            return (TrialOutcome::BadResponse, 0, Some(text.clone()));
        }
        if self.is_whole() && plain.is_some_and(|plain| self.is_gateway_error(plain)) {
            return (TrialOutcome::GatewayError, 0, None);
        }
        let plain = plain.filter(|_| self.script.same_path);
        if self.is_whole() {
            let whole = self.responses.whole();
            if let ([_, second], Some(plain)) = (whole, plain)
                && second.status == 400
                && plain.status != 400
            {
                let text = "400 to a good request: the body before it was taken for a request";
                return (TrialOutcome::BadResponse, 0, Some(text.to_owned()));
            }
            let last = whole.last();
            if let Some(missing) = last.and_then(|last| self.missing(last, plain)) {
                return (TrialOutcome::TruncatedByEof, missing, None);
            }
            let outcome = match self.failure {
                Some(_) => TrialOutcome::WholeThenReset,
                None => TrialOutcome::WholeThenFin,
            };
            return (outcome, 0, None);
        }
        let reset = matches!(self.end, Some(ClientEnd::Reset | ClientEnd::GaveUp));
        let lost = |cut: &Response| {
            let length = cut.announced.or_else(|| self.length(cut, plain));
            length.map_or(0, |length| length.saturating_sub(cut.body_bytes))
        };
        match (&self.end, self.responses.current()) {
            (Some(ClientEnd::TimedOut) | None, cut) => {
                (TrialOutcome::Timeout, cut.map_or(0, lost), None)
            }
            (_, Some(cut)) if reset => (TrialOutcome::TruncatedByReset, lost(cut), None),
            (_, Some(cut)) => (TrialOutcome::TruncatedByEof, lost(cut), None),
            (_, None) if reset => (TrialOutcome::NoResponseReset, 0, None),
            (_, None) => (TrialOutcome::NoResponseEof, 0, None),
        }
    }

    /// Bytes that a response without a length is missing, if it is shorter than the plain one.
    fn missing(&self, response: &Response, plain: Option<&Plain>) -> Option<u64> {
        let plain = plain.filter(|_| response.until_end);
        let missing = self
            .length(response, plain)?
            .checked_sub(response.body_bytes)?;
        (missing > 0).then_some(missing)
    }

    /// The plain response's length, if this response begins as the plain one does.
    fn length(&self, response: &Response, plain: Option<&Plain>) -> Option<u64> {
        let plain = plain.filter(|plain| plain.status == response.status)?;
        let same = plain.beginning.starts_with(self.responses.beginning());
        plain.body_bytes.filter(|_| same)
    }
}
