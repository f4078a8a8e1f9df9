//! Logs a line about each reset and each missing response.

use std::sync::Arc;

use rstlab_wire::Call;
use rstlab_witness::{Advised, Ended, Outcome, ProxyEnd, Side, Taker, Teller};

/// Logs ends, and what to do about each cause, once.
#[derive(Debug, Default)]
pub(crate) struct ProxyLog {
    advised: Advised,
}

impl Taker for ProxyLog {
    fn take(&self, ended: &Arc<Ended>) {
        let Teller::Proxy(end) = &ended.teller else {
            return;
        };
        if let Some(what) = what(ended, end) {
            log(ended, end, &what);
            if let Some(cause) = ended.verdict.as_ref().map(|verdict| verdict.cause)
                && let Some(advice) = self.advised.first(cause)
            {
                tracing::info!("what to do about {cause}: {advice}");
            }
        } else if matches!(ended.outcome, Outcome::ClientLeft | Outcome::Refused) {
            log_of_client(ended, end);
        }
    }
}

/// The message of the line; `None` if the upstream has done its part well.
fn what(ended: &Ended, end: &ProxyEnd) -> Option<String> {
    if ended.was_reset()
        && let Some(failure) = ended.failed
    {
        let doing = match failure.call {
            Call::Connect => "connecting to",
            Call::Recv | Call::Splice => "reading",
            Call::Writev => "sending to",
            Call::SoError => "watching",
        };
        return Some(format!("{failure} while {doing} upstream"));
    }
    match ended.outcome {
        Outcome::Whole | Outcome::Sent | Outcome::ClientLeft | Outcome::Refused => None,
        Outcome::Abandoned => Some("abandoned: the proxy ends".to_owned()),
        // A response is missing without any reset.
        Outcome::Truncated | Outcome::NoResponse => {
            let trouble = end.trouble.as_deref().unwrap_or_default();
            Some(if ended.was_connected() {
                trouble.to_owned()
            } else {
                format!("{trouble} while connecting to upstream")
            })
        }
    }
}

fn log(ended: &Ended, end: &ProxyEnd, what: &str) {
    let (method, path) = asked(ended);
    let verdict = ended.verdict.as_ref();
    let connected = ended.was_connected();
    tracing::warn!(
        request = ended.number,
        method = %method,
        path,
        upstream = %end.upstream,
        phase = connected.then(|| display(ended.phase)),
        reused = ended.reused.then_some(true),
        upstream_bytes = connected.then_some(end.body_bytes),
        expected_bytes = end.expected_bytes,
        lost_bytes = ended.lost_bytes(),
        harm = %ended.outcome.harm(),
        cause = verdict.map(|it| display(it.cause)),
        known = verdict.map(|it| display(it.known)),
        sent_by = verdict.and_then(|it| it.sent_by).map(name_of).map(display),
        reason = verdict.and_then(|it| it.reason.as_ref()).map(display),
        unread_bytes = verdict.and_then(|it| it.unread_bytes),
        disagreement = verdict.and_then(|it| it.disagreement.as_deref()),
        "{what}"
    );
}

/// The client's doing: it left, or the proxy refused its request.
fn log_of_client(ended: &Ended, end: &ProxyEnd) {
    let (method, path) = asked(ended);
    let what = match (end.status, &end.trouble) {
        (Some(status), Some(trouble)) => format!("{status}: {trouble}"),
        _ => "the client left".to_owned(),
    };
    tracing::info!(
        request = ended.number,
        client = %end.client,
        method = %method,
        path,
        phase = ended.was_connected().then(|| display(ended.phase)),
        harm = %ended.outcome.harm(),
        "{what}"
    );
}

fn asked(ended: &Ended) -> (&str, &str) {
    let asked = ended.request.as_deref().unwrap_or_default();
    asked.split_once(' ').unwrap_or((asked, ""))
}

/// The names of an upstream connection's two ends in a proxy's log.
fn name_of(side: Side) -> &'static str {
    match side {
        Side::Client => "proxy",
        Side::Server => "upstream",
    }
}
