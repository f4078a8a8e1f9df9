use std::net::SocketAddr;
use std::sync::Arc;

use rstlab_wire::nanos;
use rstlab_witness::{
    Account, ClientSide, Counted, Event, Evidence, KERNEL_SPEAKS, Lane, Record, Window, Witness,
};
use tokio::net::TcpStream;

use crate::report::{Exchange, Outcome};
use crate::trouble::Trouble;
use crate::upstream::Shared;

impl Shared {
    /// Ends an exchange: counts it, and if there is something to tell, has a task find out why and log it, off the
    /// request's path.
    pub(crate) fn finish(&self, exchange: &Arc<Exchange>, outcome: Outcome) {
        let to_tell = exchange.count(outcome, &self.stats);
        // Now, for the next one may begin.
        let window = exchange.watch.end();
        if !to_tell && !self.witness.wants_everything() {
            return;
        }
        let past = window.map(Window::ended);
        let (exchange, witness) = (Arc::clone(exchange), self.witness.clone());
        self.tasks.spawn(async move {
            let counted = match past {
                Some(past) => past.counted().await,
                None => None,
            };
            let record = examine(&exchange, outcome, counted, &witness).await;
            exchange.log(outcome, record.as_ref().map(|record| &record.verdict));
            if let Some(record) = record {
                witness.keep(record);
            }
        });
    }
}

/// Why the upstream's connection ended as it did; `None` if it was not the connection's end that cost the response.
async fn examine(
    exchange: &Exchange,
    outcome: Outcome,
    counted: Option<Counted>,
    witness: &Witness,
) -> Option<Record> {
    let &(server, client) = exchange.ends.get()?;
    let reset = exchange.seen.reset();
    let closed_early = matches!(
        outcome,
        Outcome::Truncated(Trouble::Closed) | Outcome::NoResponse(Trouble::Closed)
    );
    if reset.is_none() && !closed_early && !witness.wants_everything() {
        return None;
    }
    let side = ClientSide {
        reset,
        written_bytes: exchange.seen.written_bytes(),
        pause_ns: nanos(exchange.seen.pause()),
        read_bytes: exchange.seen.read_bytes(),
        response_whole: outcome == Outcome::Whole,
        reused: exchange.reused,
    };
    let account = Account {
        lane: Lane::Proxy,
        request: Some(format!("{} {}", exchange.method, exchange.path)),
        outcome: Some(outcome.as_str().to_owned()),
        evidence: Evidence {
            client: Some(side),
            counted,
            ..Evidence::default()
        },
        head_bytes: exchange.seen.head_bytes(),
        events: at_the_client(exchange, outcome),
    };
    let patience = reset.map_or_else(Default::default, |_| KERNEL_SPEAKS);
    let record = witness.examine(&exchange.watch, server, client, account, patience);
    Some(record.await)
}

/// What the client did and got, as far as the proxy knows.
fn at_the_client(exchange: &Exchange, outcome: Outcome) -> Vec<Event> {
    let asked = format!("{} {}", exchange.method, exchange.path);
    let got = match outcome {
        Outcome::Whole => "got the whole response".to_owned(),
        Outcome::Client => "left before the end".to_owned(),
        Outcome::Truncated(_) => format!("cut: {}", exchange.progress()),
        Outcome::NoResponse(trouble) => format!("gets a {}", trouble.status().as_u16()),
    };
    let note = |at, text| Event::note(at, Lane::Client, text);
    let mut events = vec![note(exchange.watch.since(), asked)];
    events.extend(exchange.ended.get().map(|at| note(*at, got)));
    events
}

/// Their end and ours of a connection.
pub(crate) fn ends(stream: &TcpStream) -> Option<(SocketAddr, SocketAddr)> {
    Some((stream.peer_addr().ok()?, stream.local_addr().ok()?))
}
