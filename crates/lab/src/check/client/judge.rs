use super::{Client, End};
use crate::check::outcome::{Outcome, Trial};
use crate::check::probe::Plain;
use crate::check::reasons::Made;
use crate::check::response::Response;

impl Client<'_> {
    /// The verdict on this trial; `plain` is what the same request without a body got.
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
            made: self.link.local_port().map(|port| Made {
                port,
                at: self.made,
            }),
            first_byte: self.first_byte,
            beginning: self.responses.beginning().into(),
        }
    }

    fn judge(&self, plain: Option<&Plain>) -> (Outcome, u64, Option<String>) {
        if let Some(End::Bad(text)) = &self.end {
            return (Outcome::BadResponse, 0, Some(text.clone()));
        }
        let plain = plain.filter(|_| self.script.same_path);
        if self.is_whole() {
            let whole = self.responses.whole();
            if let ([_, second], Some(plain)) = (whole, plain)
                && second.status == 400
                && plain.status != 400
            {
                let text = "400 to a good request: the body before it was taken for a request";
                return (Outcome::BadResponse, 0, Some(text.to_owned()));
            }
            let last = whole.last();
            if let Some(missing) = last.and_then(|last| self.missing(last, plain)) {
                return (Outcome::TruncatedByEof, missing, None);
            }
            let reset = self.failure.is_some();
            let outcome = [Outcome::WholeThenFin, Outcome::WholeThenReset][usize::from(reset)];
            return (outcome, 0, None);
        }
        let reset = matches!(self.end, Some(End::Reset | End::GaveUp));
        let lost = |cut: &Response| {
            let length = cut.announced.or_else(|| self.length(cut, plain));
            length.map_or(0, |length| length.saturating_sub(cut.body_bytes))
        };
        match (&self.end, self.responses.current()) {
            (Some(End::TimedOut) | None, cut) => (Outcome::Timeout, cut.map_or(0, lost), None),
            (_, Some(cut)) if reset => (Outcome::TruncatedByReset, lost(cut), None),
            (_, Some(cut)) => (Outcome::TruncatedByEof, lost(cut), None),
            (_, None) if reset => (Outcome::NoResponseReset, 0, None),
            (_, None) => (Outcome::NoResponseEof, 0, None),
        }
    }

    pub(super) fn is_whole(&self) -> bool {
        self.responses.whole().len() >= self.script.responses
            || self.said_last()
            || self.closed_between
    }

    pub(super) fn said_last(&self) -> bool {
        self.responses.whole().last().is_some_and(|one| one.is_last)
    }

    /// Bytes that a response without a length lacks, if it is shorter than the plain one.
    fn missing(&self, response: &Response, plain: Option<&Plain>) -> Option<u64> {
        let plain = plain.filter(|_| response.until_end);
        let missing = self
            .length(response, plain)?
            .checked_sub(response.body_bytes)?;
        (missing > 0).then_some(missing)
    }

    /// The length that a response has which begins as the plain one.
    fn length(&self, response: &Response, plain: Option<&Plain>) -> Option<u64> {
        let plain = plain.filter(|plain| plain.status == response.status)?;
        let same = plain.beginning.starts_with(self.responses.beginning());
        plain.body_bytes.filter(|_| same)
    }
}
