//! Logs a line about each connection.

use std::sync::Arc;

use rstlab_witness::{Advised, AnswerKind, Ended, Outcome, Side, Taker, Teller, UpstreamEnd};

/// Logs ends, and what to do about each cause, once.
#[derive(Debug, Default)]
pub(crate) struct UpstreamLog {
    advised: Advised,
}

impl Taker for UpstreamLog {
    fn take(&self, ended: &Arc<Ended>) {
        if let Teller::Upstream(end) = &ended.teller {
            log(ended, end);
            if let Some(cause) = ended.verdict.as_ref().map(|verdict| verdict.cause)
                && let Some(advice) = self.advised.first(cause)
            {
                tracing::info!("what to do about {cause}: {advice}");
            }
        }
    }
}

fn log(ended: &Ended, end: &UpstreamEnd) {
    let Some(connection) = ended.connection else {
        return;
    };
    let (peer, head_bytes) = (connection.client, ended.head_bytes);
    let status = match end.answer {
        _ if ended.outcome == Outcome::Abandoned => {
            tracing::warn!(%peer, mode = end.mode, head_bytes, body_bytes = end.body_bytes, "abandoned");
            return;
        }
        None if ended.outcome == Outcome::NoResponse => return,
        None => {
            tracing::debug!(%peer, head_bytes, "closed without a request");
            return;
        }
        Some((status, AnswerKind::Health)) => {
            tracing::debug!(%peer, status, "health check");
            return;
        }
        Some((status, AnswerKind::Response | AnswerKind::Refusal)) => status,
    };
    let (closed, verdict) = (end.side.closed, ended.verdict.as_ref());
    let peer_state: &str = closed.peer.into();
    tracing::info!(
        %peer,
        mode = end.mode,
        status,
        head_bytes,
        body_bytes = end.body_bytes,
        unread_bytes = closed.unread_bytes,
        unsent_bytes = closed.unsent_bytes,
        lingered_bytes = closed.lingered_bytes,
        peer_state,
        cause = verdict.map(|it| display(it.cause)),
        known = verdict.map(|it| display(it.known)),
        sent_by = verdict.and_then(|it| it.sent_by).map(name_of).map(display),
        reason = verdict.and_then(|it| it.reason.as_ref()).map(display),
        disagreement = verdict.and_then(|it| it.disagreement.as_deref()),
        "closed"
    );
}

/// The names of a connection's two ends in an upstream's log.
fn name_of(side: Side) -> &'static str {
    match side {
        Side::Client => "client",
        Side::Server => "upstream",
    }
}
