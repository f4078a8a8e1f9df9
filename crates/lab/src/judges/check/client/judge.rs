//! Judges how a trial ended.

use super::steps::{Client, ClientEnd};
use crate::judges::check::probe::Plain;
use crate::judges::check::reasons::Made;
use crate::judges::check::response::Response;
use crate::judges::check::trial::{Trial, TrialOutcome};

impl Client<'_> {
    /// The trial's outcome; `plain` is the answer to the same request without a body.
    pub(in super::super) fn trial(self, plain: Option<&Plain>) -> Trial {
        let (outcome, lost_bytes, bad) = self.judge(plain);
        let whole = self.responses.whole();
        let cut = self.responses.current();
        Trial {
            outcome,
            status: whole.first().or(cut).map(|one| one.status),
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

    fn judge(&self, plain: Option<&Plain>) -> (TrialOutcome, u64, Option<String>) {
        if let Some(ClientEnd::Bad(text)) = &self.end {
            return (TrialOutcome::BadResponse, 0, Some(text.clone()));
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
