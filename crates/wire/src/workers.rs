//! Serves a listener with several threads, each with an event loop and a listening socket of its own.

use std::io;
use std::num::NonZeroUsize;
use std::thread;
use std::time::Duration;

use futures_util::future::try_join_all;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio::time::sleep;
use tracing::dispatcher::{get_default, with_default};

use crate::StopOrder;

/// Connections that the kernel holds until they are accepted (it caps this at `net.core.somaxconn`).
pub const BACKLOG: u16 = 4096;

/// Shorter than the time limits of a request; each worker wakes up so often when it has nothing to do.
const TICK: Duration = Duration::from_secs(1);

/// Serves `listener` on `count` threads until each of them has done so. `serve` runs on each thread once, with the thread's
/// own listening socket; the sockets share the address, and the kernel gives each connection to one of them
/// (`SO_REUSEPORT`). Connections have a send buffer of `sndbuf` bytes, if `listener` has it.
///
/// If this future is dropped, the threads get the order to stop.
///
/// # Errors
/// A socket or a thread can't be made, or `serve` fails on one of the threads; then the others get the order to stop.
pub async fn serve<F>(
    listener: TcpListener,
    count: NonZeroUsize,
    sndbuf: Option<u32>,
    stop: &StopOrder,
    serve: impl Fn(TcpListener, StopOrder) -> F + Clone + Send + 'static,
) -> io::Result<()>
where
    F: Future<Output = io::Result<()>>,
{
    let stop = stop.child();
    let _stops_the_others = stop.finish.clone().drop_guard();
    let mut ends = Vec::new();
    for (number, listener) in listeners(listener, count, sndbuf)?.into_iter().enumerate() {
        // Not shared: a token's waiters stand in a list with a lock.
        let (serve, stop) = (serve.clone(), stop.child());
        let (sender, end) = oneshot::channel();
        let log = get_default(Clone::clone);
        let work = move || {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let served = async {
                tokio::spawn(tick());
                serve(TcpListener::from_std(listener)?, stop).await
            };
            with_default(&log, || runtime.block_on(served))
        };
        thread::Builder::new()
            .name(format!("worker-{number}"))
            // Fails only if nobody waits for the end any more.
            .spawn(move || drop(sender.send(work())))?;
        ends.push(async { end.await.map_err(io::Error::other)? });
    }
    try_join_all(ends).await.map(drop)
}

/// Keeps a timer that is due before those of a request. A new timer that is due before all others makes tokio wake its own
/// loop, with a `write(2)` to an eventfd and another `epoll_wait(2)` (`time::Handle::reregister`).
async fn tick() {
    loop {
        sleep(TICK).await;
    }
}

/// `listener` and as many more as make `count`, on the same address.
///
/// `listener` was bound without `SO_REUSEPORT`, so a second program that does the same finds the address in use. The
/// kernel lets sockets join that have the option (`inet_csk_bind_conflict`), and groups them at their `listen(2)`
/// (`reuseport_add_sock`).
fn listeners(
    listener: TcpListener,
    count: NonZeroUsize,
    sndbuf: Option<u32>,
) -> io::Result<Vec<std::net::TcpListener>> {
    let listener = listener.into_std()?;
    let has = SockRef::from(&listener).send_buffer_size()?;
    // The kernel doubles the number (socket(7)). A size over its limit was not set.
    let sndbuf = sndbuf
        .map(|bytes| bytes as usize)
        .filter(|bytes| bytes * 2 == has);
    // The connections inherit the option, which costs each of them a call otherwise.
    SockRef::from(&listener).set_tcp_nodelay(true)?;
    let mut listeners = vec![listener];
    for _ in 1..count.get() {
        let first = SockRef::from(&listeners[0]);
        first.set_reuse_port(true)?;
        let address = first.local_addr()?;
        let domain = Domain::for_address(address.as_socket().ok_or(io::ErrorKind::Unsupported)?);
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
        if domain == Domain::IPV6 {
            socket.set_only_v6(first.only_v6()?)?;
        }
        socket.set_nonblocking(true)?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.set_tcp_nodelay(true)?;
        if let Some(bytes) = sndbuf {
            socket.set_send_buffer_size(bytes)?;
        }
        socket.bind(&address)?;
        socket.listen(BACKLOG.into())?;
        listeners.push(socket.into());
    }
    Ok(listeners)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::net::SocketAddr;
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
    use tokio::task::JoinHandle;
    use tokio_util::sync::CancellationToken;
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::{Slots, accept};

    const TWO: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1);

    /// More connections than the kernel can be expected to give to one worker of two (1 in 2^200).
    const MANY: usize = 200;

    /// Two workers that write their thread's number to each connection. If they are `held`, each takes one connection,
    /// and the others when the order to stop comes.
    async fn two_workers(
        held: bool,
    ) -> (SocketAddr, CancellationToken, JoinHandle<io::Result<()>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let order = StopOrder::from(stop.clone());
        let worker = move |listener, stop: StopOrder| {
            let holds = stop.finish.clone();
            let slots = Slots::new(if held { 1 } else { MANY }, 0);
            accept::serve(
                listener,
                slots,
                stop,
                TaskTracker::new(),
                move |mut stream, _, _| {
                    let holds = holds.clone();
                    async move {
                        let name = thread::current().name().unwrap_or_default().to_owned();
                        let number = name.rsplit('-').next().unwrap().as_bytes()[0];
                        stream.write_all(&[number]).await.unwrap();
                        if held {
                            holds.cancelled().await;
                        }
                    }
                },
            )
        };
        let running = tokio::spawn(async move { serve(listener, TWO, None, &order, worker).await });
        (address, stop, running)
    }

    async fn workers_of(clients: Vec<TcpStream>) -> HashSet<u8> {
        let mut workers = HashSet::new();
        for mut client in clients {
            workers.insert(client.read_u8().await.unwrap());
            assert_eq!(client.read(&mut [0]).await.unwrap(), 0, "a FIN, no RST");
        }
        workers
    }

    async fn connect(address: SocketAddr) -> Vec<TcpStream> {
        let mut clients = Vec::new();
        for _ in 0..MANY {
            clients.push(TcpStream::connect(address).await.unwrap());
        }
        clients
    }

    #[tokio::test]
    async fn two_workers_share_an_address_that_is_in_use_for_others() {
        let (address, stop, running) = two_workers(false).await;
        // The first connection is served, so both sockets listen.
        let mut first = TcpStream::connect(address).await.unwrap();
        first.read_u8().await.unwrap();
        let workers = workers_of(connect(address).await).await;
        assert_eq!(workers, HashSet::from([b'0', b'1']));
        let error = TcpListener::bind(address).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        stop.cancel();
        running.await.unwrap().unwrap();
        TcpListener::bind(address).await.unwrap();
    }

    #[tokio::test]
    async fn two_workers_lose_no_connection_that_waits_when_they_stop() {
        let (address, stop, running) = two_workers(true).await;
        let mut first = TcpStream::connect(address).await.unwrap();
        first.read_u8().await.unwrap();
        let clients = connect(address).await;
        stop.cancel();
        assert_eq!(workers_of(clients).await, HashSet::from([b'0', b'1']));
        running.await.unwrap().unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn workers_whose_future_is_dropped_stop() {
        let (address, _stop, running) = two_workers(false).await;
        let mut first = TcpStream::connect(address).await.unwrap();
        first.read_u8().await.unwrap();
        running.abort();
        // The workers close their sockets.
        while TcpStream::connect(address).await.is_ok() {}
    }

    #[tokio::test]
    async fn a_worker_that_fails_stops_the_others() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (sender, mut stopped) = unbounded_channel();
        let sender: Arc<UnboundedSender<()>> = Arc::new(sender);
        let worker = move |_listener, stop: StopOrder| {
            let sender = Arc::clone(&sender);
            async move {
                if thread::current().name() == Some("worker-1") {
                    return Err(io::Error::other("failed"));
                }
                stop.finish.cancelled().await;
                sender.send(()).map_err(io::Error::other)
            }
        };
        let error = serve(listener, TWO, None, &StopOrder::default(), worker).await;
        assert_eq!(error.unwrap_err().to_string(), "failed");
        stopped.recv().await.unwrap();
    }
}
