//! The plain request, without a body, that the trials are compared with: what answers it, how fast, and how many at once.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;
use tokio::time::{Instant, sleep, timeout};

use super::cannot_check::{CannotCheck, is_refused, unconnected};
use super::client::{Client, MAX_BYTES, Manner};
use super::client_socket::ClientSocket;
use super::outages::RETRY_EVERY;
use super::plan::CheckPlan;
use super::response::TLS;
use super::scenarios::early;
use super::script::{RequestHead, Script, Step};
use super::trial::{Trial, TrialOutcome, is_turned_away};
use crate::shared::other_protocol::TLS_HELLO;

/// The answer to the plain request, which has no body but the one given with `--data`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Plain {
    /// Its status.
    pub status: u16,
    /// Statuses expected of the path: this one, or those that were asked for.
    pub expected_statuses: Vec<u16>,
    /// Status of the answer on the path of uploads that are answered early (`--path-404`, or a path that does not exist);
    /// null if there was none in time.
    pub early_path_status: Option<u16>,
    /// The response came to its end.
    pub whole: bool,
    /// Length of the response's body; null if the response came cut or its length changes.
    pub body_bytes: Option<u64>,
    /// Microseconds from connecting to the first byte of the response; the faster of two requests, for the first one may
    /// meet a server that has not warmed up.
    pub first_byte_us: u64,
    /// `Content-Encoding`: how the body is compressed.
    pub content_encoding: Option<String>,
    /// `Location`: where a redirect leads.
    pub location: Option<String>,
    /// `Server`: what the server says that it is.
    pub server: Option<String>,
    /// `X-Powered-By`: what frameworks say instead.
    pub powered_by: Option<String>,
    /// A silent connection kept the server from answering on another one.
    pub one_at_a_time: bool,
    /// The first bytes of its body.
    #[serde(skip)]
    pub(super) beginning: Box<[u8]>,
}

impl Plain {
    /// Time from connecting to the first byte of the response.
    pub(super) fn first_byte(&self) -> Duration {
        Duration::from_micros(self.first_byte_us)
    }

    #[cfg(test)]
    pub(super) fn of_a_server_that_takes(first_byte: Duration, one_at_a_time: bool) -> Self {
        Self {
            status: 200,
            expected_statuses: vec![200],
            early_path_status: Some(404),
            whole: true,
            body_bytes: None,
            content_encoding: None,
            location: None,
            server: None,
            powered_by: None,
            first_byte_us: first_byte.as_micros() as u64,
            one_at_a_time,
            beginning: Box::default(),
        }
    }
}

/// Fields of a plain answer.
struct PlainFields {
    content_encoding: Option<String>,
    location: Option<String>,
    server: Option<String>,
    powered_by: Option<String>,
}

/// A server that takes longer is slow: the second request is then sent while the first one waits.
const SLOW: Duration = Duration::from_millis(500);

/// Sends the plain request twice.
///
/// # Errors
/// Nothing listens there, or nothing answers with HTTP/1.
pub(super) async fn plain(plan: &CheckPlan) -> Result<Plain, CannotCheck> {
    let script = script(plan);
    let limit = plan.timeout;
    let first = ask(plan, &script, limit);
    tokio::pin!(first);
    let (first, second) = match timeout(SLOW, &mut first).await {
        Ok(Err(nothing @ CannotCheck::Nothing { .. })) => {
            speaks_no_tls(plan).await?;
            return Err(nothing);
        }
        Ok(first) => (first?, ask(plan, &script, limit).await?),
        // The second request may have to wait until the first one was answered.
        Err(_) => tokio::try_join!(first, ask(plan, &script, limit.saturating_mul(2)))?,
    };
    let ((first, fields), (second, _)) = (first, second);
    if first.status == Some(400) {
        speaks_no_tls(plan).await?;
    }
    let [took, second_took] = [&first, &second].map(|one| one.first_byte.unwrap_or_default());
    let one_at_a_time = if took >= SLOW * 2 {
        waited_for_the_first(took, second_took)
    } else {
        is_one_at_a_time(plan, &script, took).await
    };
    let [length, second_length] =
        [&first, &second].map(|one| one.outcome.is_whole().then_some(one.body_bytes));
    let status = first.status.unwrap_or_default();
    let expected_statuses = match &plan.expected_statuses[..] {
        [] if is_turned_away(status) => {
            return Err(CannotCheck::TurnedAway {
                address: plan.target.address.clone(),
                status,
                turned_away: 1,
                answered: 1,
            });
        }
        [] => vec![status],
        given => given.to_vec(),
    };
    Ok(Plain {
        status,
        expected_statuses,
        early_path_status: early_path_status(plan, took.min(second_took)).await,
        whole: first.outcome.is_whole(),
        body_bytes: length.filter(|_| length == second_length),
        content_encoding: fields.content_encoding,
        location: fields.location,
        server: fields.server,
        powered_by: fields.powered_by,
        first_byte_us: u64::try_from(took.min(second_took).as_micros()).unwrap_or(u64::MAX),
        one_at_a_time,
        beginning: first.beginning,
    })
}

/// The answer on the path of uploads that are answered early, mostly one that does not exist: a gateway may have its own
/// error for such a path.
async fn early_path_status(plan: &CheckPlan, took: Duration) -> Option<u16> {
    let (path, _) = early(plan);
    let head = RequestHead::new(plan).path(path).length(0);
    let script = Script::new(plan, vec![head.send()]);
    let limit = (took * 4 + SLOW).min(plan.timeout);
    let (trial, _) = ask(plan, &script, limit).await.ok()?;
    trial.status
}

/// Whether the second of two requests, sent while the first one waited for its answer, had to wait for that answer too.
fn waited_for_the_first(took: Duration, second_took: Duration) -> bool {
    second_took > took + took / 4
}

/// Makes sure that a server which lost responses still runs: a server that has ended loses every response. `made` is how
/// many trials there were.
///
/// # Errors
/// The server no longer takes connections.
pub(super) async fn still_there(plan: &CheckPlan, made: u64) -> Result<(), CannotCheck> {
    let address = &plan.target.address;
    let begun = Instant::now();
    loop {
        match timeout(SLOW, ClientSocket::connect(address, None)).await {
            Ok(Err(error)) if is_refused(&error) && begun.elapsed() < plan.retry => {
                sleep(RETRY_EVERY).await;
            }
            Ok(Err(error)) => return Err(unconnected(address, error, Some(made))),
            // If the connect times out, the queue is full: a server is there.
            Ok(Ok(_)) | Err(_) => return Ok(()),
        }
    }
}

/// Makes sure that 400, or the end of the connection, is the answer to the request, and not to http on a port for https.
///
/// # Errors
/// The server answers a TLS handshake with a TLS record.
async fn speaks_no_tls(plan: &CheckPlan) -> Result<(), CannotCheck> {
    let hello = Script::new(plan, vec![Step::Send(TLS_HELLO.to_vec())]);
    match ask(plan, &hello, plan.timeout).await {
        Err(CannotCheck::NotHttp { address, what }) if what == TLS => {
            Err(CannotCheck::NotHttp { address, what })
        }
        _ => Ok(()),
    }
}

fn script(plan: &CheckPlan) -> Script {
    Script::new(plan, vec![RequestHead::new(plan).send_plain()])
}

/// Plays the script as a usual client.
///
/// # Errors
/// No status came, or the response is none that can be compared with.
async fn ask(
    plan: &CheckPlan,
    script: &Script,
    limit: Duration,
) -> Result<(Trial, PlainFields), CannotCheck> {
    let address = plan.target.address.clone();
    plan.pace.wait(1).await;
    let client = Client::connect(&address, script, Manner::ordinary(limit)).await;
    let mut client = client.map_err(|source| unconnected(&address, source, None))?;
    client.play().await;
    let fields = PlainFields {
        content_encoding: client.field("content-encoding"),
        location: client.field("location"),
        server: client.field("server"),
        powered_by: client.field("x-powered-by"),
    };
    let trial = client.trial(None);
    let how = match (trial.status, trial.outcome) {
        (_, TrialOutcome::BadResponse) if trial.body_bytes < MAX_BYTES / 2 => {
            let what = trial.bad.unwrap_or_default();
            return Err(CannotCheck::NotHttp { address, what });
        }
        (Some(_), TrialOutcome::Timeout | TrialOutcome::BadResponse) => {
            return Err(CannotCheck::Endless { address, limit });
        }
        (Some(_), _) => return Ok((trial, fields)),
        (None, TrialOutcome::NoResponseEof) => "closes the connection",
        (None, TrialOutcome::NoResponseReset) => "resets the connection",
        (None, _) => return Err(CannotCheck::Silent { address, limit }),
    };
    Err(CannotCheck::Nothing { address, how })
}

/// How much longer than the first answer another one may take at most.
const MAX_PATIENCE: Duration = Duration::from_millis(1500);

/// Whether a connection that has sent nothing yet keeps the server from answering on another one.
async fn is_one_at_a_time(plan: &CheckPlan, script: &Script, took: Duration) -> bool {
    let silent = Script {
        steps: Vec::new(),
        ..script.clone()
    };
    plan.pace.wait(2).await;
    let (address, manner) = (&plan.target.address, Manner::ordinary(plan.timeout));
    let Ok(_held) = Client::connect(address, &silent, manner).await else {
        return true;
    };
    let patience = (took * 10 + Duration::from_millis(200)).min(took + MAX_PATIENCE);
    match Client::connect(
        address,
        script,
        Manner::ordinary(patience.min(plan.timeout)),
    )
    .await
    {
        Ok(mut client) => {
            client.play().await;
            client.trial(None).outcome == TrialOutcome::Timeout
        }
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_serves_one_connection_at_a_time_answers_the_second_request_later() {
        let after = Duration::from_millis;
        // The second request is sent 500 ms after the first, to a server that takes 1.1 s for each.
        assert!(waited_for_the_first(after(1100), after(600 + 1100)));
        assert!(!waited_for_the_first(after(1100), after(1100)));
    }
}
