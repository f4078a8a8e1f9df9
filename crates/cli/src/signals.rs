//! The signals that stop a program.

use std::io;

use rstlab_wire::StopOrder;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// An order to stop that the first SIGTERM or SIGINT gives, and whose second step the second of these signals gives.
///
/// # Errors
/// The handlers can't be installed.
pub fn stop_order_on_signals() -> io::Result<StopOrder> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = StopOrder::default();
    let stopped = stop.clone();
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            }
        };
        let name = next().await;
        tracing::info!("{name}: finishing what runs, then ending");
        stopped.finish.cancel();
        let name = next().await;
        tracing::info!("{name}: ending at once");
        stopped.abandon.cancel();
    });
    Ok(stop)
}

/// Whether a program ended as the first signal asks; an error after the second one, for exit code 1.
///
/// # Errors
/// The second signal has come.
pub fn ended_in_peace(stop: &StopOrder) -> anyhow::Result<()> {
    anyhow::ensure!(
        !stop.abandon.is_cancelled(),
        "ended at once by a second signal"
    );
    Ok(())
}

/// A token that SIGTERM or SIGINT cancels.
///
/// # Errors
/// The handlers can't be installed.
pub fn stop_on_signals() -> io::Result<CancellationToken> {
    Ok(stop_order_on_signals()?.finish)
}
