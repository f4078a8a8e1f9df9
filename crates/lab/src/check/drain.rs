use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::io::Interest;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::Plan;
use super::client::{Client, Left, Manner};
use super::drip::{drip, is_narrow};
use super::link::Link;
use super::outcome::Model;
use super::probe::Plain;
use super::script::{Head, Script};
use rstlab_cli::grouped;

/// The search over bytes goes up to here; a request announces one byte more.
const MOST_BYTES: u64 = 16 * 1024 * 1024;

/// Time for the search over bytes; if a slow moment spoilt it, there is a second one.
const SEARCH: Duration = Duration::from_secs(4);

/// A server that takes no byte for so long does not read.
pub(super) const STALL: Duration = Duration::from_millis(300);

/// After a response, for the FIN of a server that half-closes.
const UNTIL_FIN: Duration = Duration::from_millis(100);

/// Whether and how far the server reads on once it has answered a request whose body has not come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Drain {
    /// What it does.
    pub kind: Kind,
    /// Bytes it reads on for, if it does.
    pub bytes: Option<Bound>,
    /// Milliseconds it reads on for, if it does, while a byte comes every now and then.
    pub milliseconds: Option<Bound>,
    /// The same in a sentence.
    pub sentence: String,
}

/// A bound, as an interval: what was still read, and what was not any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Bound {
    /// So much was read.
    pub at_least: u64,
    /// So much was answered with a reset; `null` if the search ended without one.
    pub less_than: Option<u64>,
}

/// What a server does with a body that comes after its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// It does not answer before the body has come.
    ReadsFirst,
    /// It resets the connection even if nothing comes.
    Aborts,
    /// The first byte is answered with a reset.
    ResetsAtOnce,
    /// It reads on, within the bounds.
    ReadsOn,
    /// It keeps the connection and does not read: how long until the reset is in `milliseconds`.
    Holds,
    /// Its answer to a head alone does not come whole.
    Unknown,
    /// It answers too slowly for a search.
    NotSearched,
}

impl Drain {
    fn new(kind: Kind, bytes: Option<Bound>, milliseconds: Option<Bound>) -> Self {
        Self {
            kind,
            bytes,
            milliseconds,
            sentence: sentence(kind, bytes, milliseconds),
        }
    }
}

/// The first half of the search: over bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bytes {
    kind: Kind,
    bound: Option<Bound>,
}

/// Searches for the bytes that the server reads on for, until `end` at most.
pub(super) async fn bytes(plan: &Plan, plain: &Plain, end: Instant) -> Bytes {
    // How long a reset may take: the server has to read what came.
    let settle = (plain.first_byte() * 2 + Duration::from_millis(15)).min(STALL);
    if Instant::now() + patience(plan, plain) + settle >= end {
        let kind = Kind::NotSearched;
        return Bytes { kind, bound: None };
    }
    let deadline = (Instant::now() + SEARCH).min(end);
    let found = search(plan, plain, None, settle, deadline).await;
    let Bytes {
        kind: Kind::ReadsOn,
        bound: Some(bound),
    } = found
    else {
        return found;
    };
    // A slow moment of the server's may have passed for reading on: what was read must be read again.
    let patient = settle * 4;
    for _ in 0..2 {
        let again = pour_into(plan, plain, bound.at_least, patient);
        if let Ok(Ok(Poured::Reset)) = timeout_at(end, again).await {
            let deadline = (deadline + SEARCH).min(end);
            return search(plan, plain, Some(bound.at_least), patient, deadline).await;
        }
    }
    found
}

/// Eight times as much, until a reset comes; then halves what lies between. `reset` is how much is known to bring
/// one.
async fn search(
    plan: &Plan,
    plain: &Plain,
    mut reset: Option<u64>,
    settle: Duration,
    deadline: Instant,
) -> Bytes {
    let unbounded = |kind| Bytes { kind, bound: None };
    let mut read = 0;
    loop {
        let next = match reset {
            Some(1) => return unbounded(Kind::ResetsAtOnce),
            Some(reset) if reset - read <= (reset >> 20).max(1) => break,
            Some(reset) => read + (reset - read) / 2,
            None if read >= MOST_BYTES => break,
            None => (read * 8).clamp(1, MOST_BYTES),
        };
        let poured = pour_into(plan, plain, next, settle);
        let Ok(poured) = timeout_at(deadline, poured).await else {
            // The interval is then a wide one.
            break;
        };
        match poured {
            Err(kind) => return unbounded(kind),
            Ok(Poured::Stalled) => return unbounded(Kind::Holds),
            Ok(Poured::Reset) => reset = Some(next),
            Ok(Poured::Taken) => read = next,
        }
    }
    if read == 0 {
        return unbounded(Kind::NotSearched);
    }
    let bound = Bound {
        at_least: read,
        less_than: reset,
    };
    Bytes {
        kind: Kind::ReadsOn,
        bound: Some(bound),
    }
}

/// The second half: for how long the server reads on while bytes come, within the bound of bytes; until `end` at
/// most.
pub(super) async fn time(
    plan: &Arc<Plan>,
    plain: &Arc<Plain>,
    bytes: Bytes,
    end: Instant,
) -> Drain {
    let milliseconds = match bytes.kind {
        Kind::ReadsOn | Kind::Holds => {
            let most = bytes.bound.map_or(MOST_BYTES, |bound| bound.at_least);
            drip(plan, plain, most, end).await
        }
        _ => None,
    };
    Drain::new(bytes.kind, bytes.bound, milliseconds)
}

/// What became of bytes sent after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Poured {
    Taken,
    Stalled,
    Reset,
}

async fn pour_into(
    plan: &Plan,
    plain: &Plain,
    bytes: u64,
    settle: Duration,
) -> Result<Poured, Kind> {
    let script = script(plan);
    let Answered { mut link, .. } = answered(plan, &script, plain).await?;
    Ok(pour(&mut link, bytes, settle).await)
}

async fn pour(link: &mut Link, mut left: u64, settle: Duration) -> Poured {
    let piece = [b'x'; 16 * 1024];
    let end = Instant::now() + SEARCH;
    while left > 0 {
        if Instant::now() >= end {
            return Poured::Stalled;
        }
        let most = usize::try_from(left).unwrap_or(usize::MAX);
        match link.try_write(&piece[..most.min(piece.len())]) {
            Some(Ok(sent)) => left -= sent as u64,
            Some(Err(_)) => return Poured::Reset,
            None => {
                let writable = link.ready(Interest::WRITABLE);
                if timeout(STALL, writable).await.is_err() {
                    return Poured::Stalled;
                }
            }
        }
    }
    let (mut unsent, mut since) = (link.unsent(), Instant::now());
    loop {
        if link.take_error().is_some() {
            return Poured::Reset;
        }
        let now = link.unsent();
        if now < unsent {
            (unsent, since) = (now, Instant::now());
        }
        let idle = since.elapsed();
        match unsent {
            0 if idle >= settle => return Poured::Taken,
            // An ACK may be late by 40 ms; one that does not come at all is a full window.
            1.. if idle >= STALL || Instant::now() >= end => return Poured::Stalled,
            _ => sleep(Duration::from_millis(1)).await,
        }
    }
}

pub(super) fn script(plan: &Plan) -> Script {
    Script::new(plan, vec![Head::new(plan).length(MOST_BYTES + 1).send()])
}

/// How long an answer to a head alone may take: a server that takes longer waits for the body.
fn patience(plan: &Plan, plain: &Plain) -> Duration {
    (plain.first_byte() * 4 + Duration::from_millis(500)).min(plan.timeout)
}

/// A connection whose answer has been read to its end, none of whose body was sent.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) link: Link,
    /// The server had not ended its answer before this moment,
    pub(super) begun: Instant,
    /// and had before this one.
    pub(super) ended: Instant,
}

pub(super) async fn answered(
    plan: &Plan,
    script: &Script,
    plain: &Plain,
) -> Result<Answered, Kind> {
    let manner = Manner {
        model: Model::ReadsOn,
        late: false,
        timeout: patience(plan, plain),
    };
    let client = Client::connect(&plan.target.address, script, manner).await;
    let mut client = client.map_err(|_| Kind::Unknown)?;
    client.play().await;
    let ended = Instant::now();
    let begun = client.before_first_byte();
    if client.is_left_open() {
        client.watch(UNTIL_FIN).await;
    }
    match client.into_link() {
        Ok(link) => Ok(Answered { link, begun, ended }),
        Err(Left::Silent) => Err(Kind::ReadsFirst),
        Err(Left::Reset) => Err(Kind::Aborts),
        Err(Left::Cut) => Err(Kind::Unknown),
    }
}

fn sentence(kind: Kind, bytes: Option<Bound>, milliseconds: Option<Bound>) -> String {
    match kind {
        Kind::ReadsFirst => "It reads the body before it answers.".to_owned(),
        Kind::Aborts => "It resets the connection after its answer, whether or not a body comes.".to_owned(),
        Kind::ResetsAtOnce => {
            "It answers before the body has come and does not read on: the first byte that comes later is \
             answered with a reset."
                .to_owned()
        }
        Kind::ReadsOn => {
            let is_bounded = [bytes, milliseconds]
                .iter()
                .flatten()
                .any(|bound| bound.less_than.is_some());
            let bytes = bytes.map(|bound| {
                let read = grouped(bound.at_least);
                match bound.less_than {
                    Some(reset) if reset - bound.at_least > bound.at_least / 50 + 1 => {
                        format!("up to between {read} and {} bytes", grouped(reset))
                    }
                    Some(_) if bound.at_least == 1 => "1 byte".to_owned(),
                    Some(_) => format!("up to {read} bytes"),
                    None => format!("more than {read} bytes"),
                }
            });
            let bounds: Vec<String> = bytes.into_iter().chain(milliseconds.map(seconds)).collect();
            let then = if is_bounded { ", then resets" } else { "" };
            let bounds = bounds.join(" or for ");
            format!("It answers before the body has come and drains {bounds}{then}.")
        }
        Kind::Holds => match milliseconds {
            Some(bound) => format!(
                "It answers before the body has come, and then neither reads nor closes for {}.",
                seconds(bound)
            ),
            None => "It answers before the body has come, and then does not read.".to_owned(),
        },
        Kind::Unknown => {
            "How far it reads on is not known: its answer to a head alone does not come whole."
                .to_owned()
        }
        Kind::NotSearched => {
            "How far it reads on was not searched: its answers take too long for the time there is."
                .to_owned()
        }
    }
}

fn seconds(bound: Bound) -> String {
    let low = Duration::from_millis(bound.at_least);
    let Some(high) = bound.less_than.map(Duration::from_millis) else {
        return format!("more than {:.1} s", low.as_secs_f64());
    };
    match is_narrow(low, high) {
        true => format!("{:.1} s", ((low + high) / 2).as_secs_f64()),
        false => format!(
            "between {:.1} and {:.1} s",
            low.as_secs_f64(),
            high.as_secs_f64()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::target::Address;
    use super::*;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    async fn pair() -> (Link, tokio::net::TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap());
        let link = Link::connect(&address, None).await.unwrap();
        (link, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn a_server_that_reads_slowly_is_not_one_that_does_not_read() {
        const BYTES: u64 = 3_000_000;
        let settle = Duration::from_millis(1);
        let (mut link, mut server) = pair().await;
        let reading = async {
            // Some 800 ms: longer than a server may pause.
            let mut buf = vec![0; 8 * 1024];
            while matches!(server.read(&mut buf).await, Ok(bytes) if bytes > 0) {
                sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            poured = pour(&mut link, BYTES, settle) => assert_eq!(poured, Poured::Taken),
            () = reading => panic!("it ended"),
        }
        let (mut link, _server) = pair().await;
        assert_eq!(pour(&mut link, BYTES, settle).await, Poured::Stalled);
    }

    #[test]
    fn a_time_is_said_as_well_as_it_is_known() {
        for (at_least, less_than, said) in [
            (1950, Some(2040), "2.0 s"),
            (0, Some(12), "0.0 s"),
            (1000, Some(1400), "between 1.0 and 1.4 s"),
            (5490, None, "more than 5.5 s"),
        ] {
            let bound = Bound {
                at_least,
                less_than,
            };
            assert_eq!(seconds(bound), said);
        }
    }
}
