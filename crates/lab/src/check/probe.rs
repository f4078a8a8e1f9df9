use std::io;
use std::time::Duration;

use serde::Serialize;
use tokio::time::timeout;

use super::client::{Client, MOST_BYTES, Manner};
use super::link::Link;
use super::outcome::{Model, Outcome};
use super::response::TLS;
use super::script::{Head, Script, Step};
use super::unconnected::unconnected;
use super::{Plan, target::Address};

/// Why a server can't be checked.
#[derive(Debug, thiserror::Error)]
pub enum CannotCheck {
    /// Nobody listens there, or nobody answers to a connection.
    #[error("cannot connect to {address}: is the server running, and is this its port?")]
    Connect {
        /// Where to.
        address: Address,
        /// What `connect(2)` said.
        source: io::Error,
    },
    /// A connection can't be made here, whatever the server does.
    #[error("cannot open another connection: {what}")]
    OwnLimit {
        /// What is at its limit, and what to do.
        what: &'static str,
        /// What `socket(2)` or `connect(2)` said.
        source: io::Error,
    },
    /// The server was there, and no longer takes connections.
    #[error(
        "{address} stopped taking connections after {made} trials, so that what was lost says nothing: did the \
         server end?"
    )]
    Gone {
        /// Who.
        address: Address,
        /// Trials before.
        made: u64,
        /// What `connect(2)` said.
        source: io::Error,
    },
    /// A plain request without a body was not answered within the time limit.
    #[error(
        "{address} accepts connections and does not answer within {limit:?}: not even a plain request gets a \
         response, so there is none to lose. Is it an HTTP server? Is --timeout too small for it?"
    )]
    Silent {
        /// Who.
        address: Address,
        /// The limit.
        limit: Duration,
    },
    /// The connection ended before a byte of a response to a plain request.
    #[error(
        "{address} {how} without a byte of a response, even to a plain request without a body: there is no \
         response to lose. Does it speak http on this port?"
    )]
    Nothing {
        /// Who.
        address: Address,
        /// `closes the connection` or `resets the connection`.
        how: &'static str,
    },
    /// What came is not an HTTP/1 response, or not one that is read here.
    #[error("cannot read what {address} answers a plain request with: {what}")]
    NotHttp {
        /// Who.
        address: Address,
        /// What came.
        what: String,
    },
    /// The time of the check was up before a trial had ended.
    #[error(
        "no trial with {address} came to an end within {limit:?}, the time of a check with these settings; a plain \
         request takes {first_byte:?} to be answered. More --trials or a greater --timeout give it more time, a \
         --scenario or shorter --gaps make it need less"
    )]
    NoTrial {
        /// Who.
        address: Address,
        /// The time.
        limit: Duration,
        /// From connecting to the first byte of the response to a plain request.
        first_byte: Duration,
    },
    /// The response does not end.
    #[error(
        "the response of {address} does not end within {limit:?} or {} MiB: give a path whose response does", MOST_BYTES >> 20
    )]
    Endless {
        /// Who.
        address: Address,
        /// The limit.
        limit: Duration,
    },
}

/// What a plain request, without a body, is answered with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plain {
    /// Its status.
    pub status: u16,
    /// The response came to its end.
    pub whole: bool,
    /// Length of the response's body; `null` if it came cut or its length changes.
    pub body_bytes: Option<u64>,
    /// Microseconds from connecting to the first byte of the response: the quicker one of two requests, for the first
    /// may find a server that has not warmed up.
    pub first_byte_us: u64,
    /// Connections that are served at the same time: one worker serves one after the other.
    pub one_at_a_time: bool,
    /// The first bytes of its body.
    #[serde(skip)]
    pub(super) beginning: Box<[u8]>,
}

impl Plain {
    /// From connecting to the first byte of the response.
    pub(super) fn first_byte(&self) -> Duration {
        Duration::from_micros(self.first_byte_us)
    }
}

/// A server that takes longer is slow: it is asked for the second time meanwhile.
const SLOW: Duration = Duration::from_millis(500);

/// Asks for what the scenarios are compared with.
///
/// # Errors
/// Nobody there, or nobody who answers.
pub(super) async fn plain(plan: &Plan) -> Result<Plain, CannotCheck> {
    let script = script(plan);
    let limit = plan.timeout;
    let first = ask(plan, &script, limit);
    tokio::pin!(first);
    let ((first, took), (second, second_took)) = match timeout(SLOW, &mut first).await {
        Ok(first) => (first?, ask(plan, &script, limit).await?),
        // It may have to wait until the first one was answered.
        Err(_) => tokio::try_join!(first, ask(plan, &script, limit.saturating_mul(2)))?,
    };
    if first.status == 400 {
        speaks_no_tls(plan).await?;
    }
    let one_at_a_time = if took >= SLOW * 2 {
        second_took > took + took / 4
    } else {
        is_one_at_a_time(plan, &script, took).await
    };
    Ok(Plain {
        status: first.status,
        whole: first.body_bytes.is_some(),
        body_bytes: first
            .body_bytes
            .filter(|bytes| second.body_bytes == Some(*bytes)),
        first_byte_us: u64::try_from(took.min(second_took).as_micros()).unwrap_or(u64::MAX),
        one_at_a_time,
        beginning: first.beginning,
    })
}

/// Makes sure that a server which lost responses still runs: one that has ended loses whatever it was asked. `made` is
/// how many trials there were.
///
/// # Errors
/// It no longer takes connections.
pub(super) async fn still_there(plan: &Plan, made: u64) -> Result<(), CannotCheck> {
    let address = &plan.target.address;
    match timeout(SLOW, Link::connect(address, None)).await {
        Ok(Err(error)) => Err(unconnected(address, error, Some(made))),
        // A full queue is that of a server, too.
        Ok(Ok(_)) | Err(_) => Ok(()),
    }
}

/// A ClientHello of TLS 1.2 with two cipher suites (RFC 5246 §7.4.1.2), in a record of its own.
const HELLO: &[u8] =
    b"\x16\x03\x01\x00\x2f\x01\x00\x00\x2b\x03\x03rstlab asks whether this is TLS.\
    \x00\x00\x04\xc0\x2b\xc0\x2f\x01\x00";

/// What ends a request, for a server that takes the hello for one; a TLS server sees less than a record's head.
const END: &[u8] = b"\r\n\r\n";

/// Makes sure that 400 is the answer to the request, and not to speaking http on a port for https.
///
/// # Errors
/// A TLS record answers a TLS handshake.
async fn speaks_no_tls(plan: &Plan) -> Result<(), CannotCheck> {
    let hello = Script::new(plan, vec![Step::Send([HELLO, END].concat())]);
    match ask(plan, &hello, plan.timeout).await {
        Err(CannotCheck::NotHttp { address, what }) if what == TLS => {
            Err(CannotCheck::NotHttp { address, what })
        }
        _ => Ok(()),
    }
}

fn script(plan: &Plan) -> Script {
    Script::new(plan, vec![Head::new(plan).length(0).send()])
}

#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    body_bytes: Option<u64>,
    beginning: Box<[u8]>,
}

async fn ask(
    plan: &Plan,
    script: &Script,
    limit: Duration,
) -> Result<(Answer, Duration), CannotCheck> {
    let address = plan.target.address.clone();
    let manner = Manner {
        model: Model::ReadsOn,
        late: false,
        timeout: limit,
    };
    let mut client = match Client::connect(&address, script, manner).await {
        Ok(client) => client,
        Err(source) => return Err(unconnected(&address, source, None)),
    };
    client.play().await;
    let trial = client.trial(None);
    let Some(status) = trial.status else {
        return Err(match trial.outcome {
            Outcome::NoResponseEof => CannotCheck::Nothing {
                address,
                how: "closes the connection",
            },
            Outcome::NoResponseReset => CannotCheck::Nothing {
                address,
                how: "resets the connection",
            },
            Outcome::BadResponse => CannotCheck::NotHttp {
                address,
                what: trial.bad.unwrap_or_default(),
            },
            _ => CannotCheck::Silent { address, limit },
        });
    };
    let whole = matches!(
        trial.outcome,
        Outcome::WholeThenFin | Outcome::WholeThenReset
    );
    match trial.outcome {
        Outcome::Timeout => return Err(CannotCheck::Endless { address, limit }),
        Outcome::BadResponse if trial.body_bytes >= MOST_BYTES / 2 => {
            return Err(CannotCheck::Endless { address, limit });
        }
        Outcome::BadResponse => {
            let what = trial.bad.unwrap_or_default();
            return Err(CannotCheck::NotHttp { address, what });
        }
        _ => {}
    }
    let answer = Answer {
        status,
        body_bytes: whole.then_some(trial.body_bytes),
        beginning: trial.beginning,
    };
    Ok((answer, trial.first_byte.unwrap_or_default()))
}

/// Most that an answer may take longer than the first one did, on a server that gives it.
const MOST_PATIENCE: Duration = Duration::from_millis(1500);

/// Whether a connection that has sent nothing yet keeps the server from answering on another one.
async fn is_one_at_a_time(plan: &Plan, script: &Script, took: Duration) -> bool {
    let mut manner = Manner {
        model: Model::ReadsOn,
        late: false,
        timeout: plan.timeout,
    };
    let silent = Script {
        steps: Vec::new(),
        ..script.clone()
    };
    let Ok(_held) = Client::connect(&plan.target.address, &silent, manner).await else {
        return true;
    };
    let patience = (took * 10 + Duration::from_millis(200)).min(took + MOST_PATIENCE);
    manner.timeout = patience.min(plan.timeout);
    match Client::connect(&plan.target.address, script, manner).await {
        Ok(mut client) => {
            client.play().await;
            client.trial(None).outcome == Outcome::Timeout
        }
        Err(_) => true,
    }
}
