//! Accepts connections until told to stop, within the process's limit of file descriptors.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;

use crate::{ClientSlot, Slots, StopOrder};

/// Limit of the time that running tasks may take after the order to stop.
pub const GRACE: Duration = Duration::from_secs(10);

/// Limit of the time that tasks may take to end after the order to abandon what runs.
const ABANDONED: Duration = Duration::from_secs(1);

/// Descriptors kept back for listeners, the log, name resolution and the runtime.
const SPARE_DESCRIPTORS: u64 = 64;

/// Raises the soft limit of open files to the hard limit (`setrlimit(2)`), and returns how many connections may be open
/// at once, if each takes `descriptors_each` and everything else takes `descriptors_else`.
pub fn capacity(descriptors_each: u64, descriptors_else: u64) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // A sandbox may refuse this; then the soft limit stays.
    let _ = setrlimit(Resource::Nofile, raised);
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let kept_back = SPARE_DESCRIPTORS.saturating_add(descriptors_else);
    let most = files.saturating_sub(kept_back) / descriptors_each.max(1);
    usize::try_from(most).unwrap_or(usize::MAX).max(1)
}

/// Runs `handle` for each connection that gets one of the `slots`. While one waits for its slot, the others wait in the
/// kernel's queue.
///
/// When `stop` says so, accepts the connections that wait there (closing the listener would reset them), closes
/// the listener, and waits up to [`GRACE`] for every task of `tasks`. Then, or when `stop` says so, orders to abandon what
/// runs.
///
/// # Errors
/// The listener can't be taken out of the runtime at the end.
pub async fn serve<F>(
    listener: TcpListener,
    slots: Slots,
    stop: StopOrder,
    tasks: TaskTracker,
    mut handle: impl FnMut(TcpStream, SocketAddr, Arc<ClientSlot>) -> F,
) -> io::Result<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut start = |stream, peer, slot| {
        let slot = Arc::new(slot);
        let connection = handle(stream, peer, Arc::clone(&slot));
        tasks.spawn(async move {
            connection.await;
            drop(slot);
        });
    };

    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.finish.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let slot = tokio::select! {
                    biased;
                    slot = slots.client() => slot,
                    () = stop.finish.cancelled() => slots.client_at_once(),
                };
                start(stream, peer, slot);
            }
            Err(error) => accept_failed(&error).await,
        }
    }

    let listener = listener.into_std()?;
    while let Ok((stream, peer)) = listener.accept() {
        stream.set_nonblocking(true)?;
        start(TcpStream::from_std(stream)?, peer, slots.client_at_once());
    }
    drop(listener);

    tasks.close();
    let finished = timeout(GRACE, tasks.wait());
    if !matches!(
        stop.abandon.run_until_cancelled(finished).await,
        Some(Ok(()))
    ) {
        tracing::warn!(unfinished = tasks.len(), "abandoning what has not ended");
        stop.abandon.cancel();
        // A task that does not end ends with the runtime.
        let _ = timeout(ABANDONED, tasks.wait()).await;
    }
    Ok(())
}

async fn accept_failed(error: &io::Error) {
    // accept(2): errors already pending on the new connection are passed on as accept's own.
    if matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    ) {
        return;
    }
    // Out of descriptors or memory: the connection stays in the queue and accept would fail again at once.
    tracing::error!(%error, "accept() failed; trying again in 100 ms");
    sleep(Duration::from_millis(100)).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_util::sync::CancellationToken;

    #[tokio::test]
    async fn stopping_loses_no_connection_that_was_made() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut clients = Vec::new();
        for _ in 0..50 {
            clients.push(TcpStream::connect(address).await.unwrap());
        }
        let stop = CancellationToken::new();
        stop.cancel();
        serve(
            listener,
            Slots::new(1, 0),
            stop.into(),
            TaskTracker::new(),
            |mut stream, _, _| async move { stream.write_all(b"hello").await.unwrap() },
        )
        .await
        .unwrap();
        for mut client in clients {
            let mut read = String::new();
            client.read_to_string(&mut read).await.unwrap();
            assert_eq!(read, "hello");
        }
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn connections_over_the_capacity_wait_their_turn() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve(
            listener,
            Slots::new(2, 0),
            stop.clone().into(),
            TaskTracker::new(),
            |mut stream, _, _| async move {
                stream.read_u8().await.unwrap();
                stream.write_all(b"!").await.unwrap();
            },
        ));
        let mut clients = Vec::new();
        for _ in 0..6 {
            clients.push(TcpStream::connect(address).await.unwrap());
        }
        for mut client in clients {
            client.write_all(b"?").await.unwrap();
            assert_eq!(client.read_u8().await.unwrap(), b'!');
        }
        stop.cancel();
        server.await.unwrap().unwrap();
    }
}
