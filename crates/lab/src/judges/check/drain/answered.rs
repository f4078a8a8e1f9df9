//! A connection on which the server has answered a request whose body was not sent.

use std::time::Duration;

use tokio::time::Instant;

use super::report::DrainKind;
use crate::judges::check::client::{Client, Manner, Unusable};
use crate::judges::check::client_socket::ClientSocket;
use crate::judges::check::plan::CheckPlan;
use crate::judges::check::probe::Plain;
use crate::judges::check::script::{RequestHead, Script};

/// The search over bytes goes up to here; a request announces one byte more.
pub(super) const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// A server that takes no byte for so long does not read.
pub(super) const STALL: Duration = Duration::from_millis(300);

/// Time after a response for the FIN of a server that half-closes.
const UNTIL_FIN: Duration = Duration::from_millis(100);

/// The request: its head announces a body longer than any search sends.
pub(super) fn script(plan: &CheckPlan) -> Script {
    Script::new(
        plan,
        vec![RequestHead::new(plan).length(MAX_BYTES + 1).send()],
    )
}

/// How long an answer to a head alone may take: a server that takes longer waits for the body.
pub(super) fn patience(plan: &CheckPlan, plain: &Plain) -> Duration {
    (plain.first_byte() * 4 + Duration::from_millis(500)).min(plan.timeout)
}

/// A connection whose answer was read to its end before any of the request's body was sent.
#[derive(Debug)]
pub(super) struct AnsweredSocket {
    pub(super) socket: ClientSocket,
    /// A moment before the server ended its answer.
    pub(super) before_end: Instant,
    /// A moment after the server ended its answer.
    pub(super) after_end: Instant,
}

pub(super) async fn answered(
    plan: &CheckPlan,
    script: &Script,
    plain: &Plain,
) -> Result<AnsweredSocket, DrainKind> {
    let manner = Manner::ordinary(patience(plan, plain));
    plan.pace.wait(1).await;
    let client = Client::connect(&plan.target.address, script, manner).await;
    let mut client = client.map_err(|_| DrainKind::Unknown)?;
    client.play().await;
    let after_end = Instant::now();
    let before_end = client.before_first_byte();
    if client.is_left_open() {
        client.watch(UNTIL_FIN).await;
    }
    match client.into_socket() {
        Ok(socket) => Ok(AnsweredSocket {
            socket,
            before_end,
            after_end,
        }),
        Err(Unusable::Silent) => Err(DrainKind::ReadsFirst),
        Err(Unusable::Reset) => Err(DrainKind::Aborts),
        Err(Unusable::Cut) => Err(DrainKind::Unknown),
    }
}
