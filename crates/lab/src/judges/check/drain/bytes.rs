//! Searches for how many bytes a server reads after an answer.

use std::time::Duration;

use tokio::io::Interest;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::answered::{AnsweredSocket, MAX_BYTES, STALL, answered, patience, script};
use super::report::{Bound, DrainKind};
use crate::judges::check::client_socket::ClientSocket;
use crate::judges::check::plan::CheckPlan;
use crate::judges::check::probe::Plain;

/// Time for the search; if a slow moment of the server may have spoiled the search, there is a second one.
const SEARCH: Duration = Duration::from_secs(4);

/// More bytes than a socket's receive buffer holds unless the server reads (net.ipv4.tcp_rmem: 128 KiB, and more only for
/// a reader): a server that took so many and then takes no more has a bound.
const SURELY_READ: u64 = 1024 * 1024;

/// Such a server may reset the connection later: Tomcat does within a second.
const LATE_RESET: Duration = Duration::from_millis(1500);

/// Servers choose round bounds: if a reset is late, this much above what was read is tried first.
const JUST_ABOVE: u64 = 64 * 1024;

/// A wait counts as so much at most, however long it was: a machine that pauses, and this program with it, is not a
/// server that does not read.
const TICK: Duration = Duration::from_millis(5);

/// What the search found.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct BytesRead {
    pub(in super::super) kind: DrainKind,
    pub(in super::super) bound: Option<Bound>,
}

/// Searches for how many bytes the server reads after its answer, until `end` at most.
pub(in super::super) async fn search_bytes(
    plan: &CheckPlan,
    plain: &Plain,
    end: Instant,
) -> BytesRead {
    // How long a reset may take: the server has to read the bytes first.
    let settle = (plain.first_byte() * 2 + Duration::from_millis(15)).min(STALL);
    if Instant::now() + patience(plan, plain) + settle >= end {
        let kind = DrainKind::NotSearched;
        return BytesRead { kind, bound: None };
    }
    let deadline = (Instant::now() + SEARCH).min(end);
    let (found, used) = search(plan, plain, None, settle, deadline).await;
    let BytesRead {
        kind: DrainKind::ReadsOn,
        bound: Some(bound),
    } = found
    else {
        return found;
    };
    // A slow server may have looked like one that reads on: it must read the same number of bytes a second time.
    let patient = used.max(settle * 4);
    for _ in 0..2 {
        let again = pour_into(plan, plain, bound.at_least, patient, STALL);
        if let Ok(Ok(Poured::Reset | Poured::ResetLate)) = timeout_at(end, again).await {
            let deadline = (deadline + SEARCH).min(end);
            let reset = Some(bound.at_least);
            return search(plan, plain, reset, patient, deadline).await.0;
        }
    }
    found
}

/// Sends eight times as much each time until a reset comes, then halves the interval. `reset` is a number of bytes that
/// is known to cause a reset. `settle` is how long a reset may take; also returns how long one took at most.
async fn search(
    plan: &CheckPlan,
    plain: &Plain,
    mut reset: Option<u64>,
    mut settle: Duration,
    deadline: Instant,
) -> (BytesRead, Duration) {
    let unbounded = |kind| (BytesRead { kind, bound: None }, Duration::ZERO);
    let (mut read, mut just_above) = (0, None);
    loop {
        let next = match reset {
            Some(1) => return unbounded(DrainKind::ResetsAtOnce),
            Some(reset) if reset - read <= (reset >> 20).max(1) => break,
            Some(reset) => {
                let middle = read + (reset - read) / 2;
                just_above.take().unwrap_or(middle).min(middle)
            }
            None if read >= MAX_BYTES => break,
            None => (read * 8).clamp(1, MAX_BYTES),
        };
        let stall = match read >= SURELY_READ {
            true => LATE_RESET,
            false => STALL,
        };
        let poured = pour_into(plan, plain, next, settle, stall);
        let Ok(poured) = timeout_at(deadline, poured).await else {
            // The time is up: the interval stays wide.
            break;
        };
        match poured {
            Err(kind) => return unbounded(kind),
            Ok(Poured::Stalled) => return unbounded(DrainKind::Holds),
            Ok(Poured::Reset) => reset = Some(next),
            Ok(Poured::ResetLate) => {
                // With less patience the resets of the other sizes would be missed.
                (reset, settle) = (Some(next), LATE_RESET);
                just_above = Some(read + JUST_ABOVE);
            }
            Ok(Poured::Taken) => read = next,
        }
    }
    if read == 0 {
        return unbounded(DrainKind::NotSearched);
    }
    let bound = Bound {
        at_least: read,
        less_than: reset,
    };
    let found = BytesRead {
        kind: DrainKind::ReadsOn,
        bound: Some(bound),
    };
    (found, settle)
}

/// What became of bytes sent after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Poured {
    Taken,
    Stalled,
    Reset,
    /// A reset after the server had taken no byte for [`STALL`].
    ResetLate,
}

async fn pour_into(
    plan: &CheckPlan,
    plain: &Plain,
    bytes: u64,
    settle: Duration,
    stall: Duration,
) -> Result<Poured, DrainKind> {
    let script = script(plan);
    let AnsweredSocket { mut socket, .. } = answered(plan, &script, plain).await?;
    Ok(pour(&mut socket, bytes, settle, stall).await)
}

/// Sends so many bytes. A reset may take `settle` after the last one; a server that takes no byte for `stall` has stalled.
async fn pour(
    socket: &mut ClientSocket,
    mut left: u64,
    settle: Duration,
    stall: Duration,
) -> Poured {
    let piece = [b'x'; 16 * 1024];
    let mut progress = Instant::now();
    let reset = |progress: Instant| match progress.elapsed() > STALL {
        true => Poured::ResetLate,
        false => Poured::Reset,
    };
    let end = Instant::now() + SEARCH;
    while left > 0 {
        if Instant::now() >= end {
            return Poured::Stalled;
        }
        let most = usize::try_from(left).unwrap_or(usize::MAX);
        match socket.try_write(&piece[..most.min(piece.len())]) {
            Some(Ok(sent)) => {
                left -= sent as u64;
                progress = Instant::now();
            }
            Some(Err(_)) => return reset(progress),
            None if has_room(socket, stall).await => {}
            None => return Poured::Stalled,
        }
    }
    let (mut unsent, mut idle, mut looked) = (socket.unsent(), Duration::ZERO, Instant::now());
    loop {
        if socket.take_error().is_some() {
            return reset(progress);
        }
        let now = socket.unsent();
        idle = match now < unsent {
            true => {
                progress = Instant::now();
                Duration::ZERO
            }
            false => idle + looked.elapsed().min(TICK),
        };
        (unsent, looked) = (now, Instant::now());
        match unsent {
            0 if idle >= settle => return Poured::Taken,
            // An ACK may be late by 40 ms; if none comes at all, the window is full.
            1.. if idle >= stall || Instant::now() >= end => return Poured::Stalled,
            _ => sleep(Duration::from_millis(1)).await,
        }
    }
}

/// Waits for room in the send buffer, for `stall` at most.
async fn has_room(socket: &mut ClientSocket, stall: Duration) -> bool {
    for _ in 0..stall.as_millis() / TICK.as_millis() {
        if timeout(TICK, socket.ready(Interest::WRITABLE))
            .await
            .is_ok()
        {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::target::Address;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    async fn pair() -> (ClientSocket, tokio::net::TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap());
        let socket = ClientSocket::connect(&address, None).await.unwrap();
        (socket, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn a_slow_reader_is_told_from_a_server_that_does_not_read() {
        const BYTES: u64 = 3_000_000;
        let settle = Duration::from_millis(1);
        let (mut socket, mut server) = pair().await;
        let reading = async {
            // Reading takes some 600 ms: longer than a server may pause.
            let mut buf = vec![0; 64 * 1024];
            while matches!(server.read(&mut buf).await, Ok(bytes) if bytes > 0) {
                sleep(Duration::from_millis(12)).await;
            }
        };
        tokio::select! {
            poured = pour(&mut socket, BYTES, settle, STALL) => assert_eq!(poured, Poured::Taken),
            () = reading => panic!("the server stopped reading"),
        }
        let (mut socket, _server) = pair().await;
        assert_eq!(
            pour(&mut socket, BYTES, settle, STALL).await,
            Poured::Stalled
        );
    }
}
