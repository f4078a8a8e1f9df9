//! The program `rstlab-proxy`.

use std::process::ExitCode;

use rstlab_cli::{
    block_on, check_health, ended_in_peace, exit_code, init_log, listen, stop_order_on_signals,
};
use rstlab_proxy::{ProxyConfig, run};

/// Buffers come and go with each request and cross threads, which costs much CPU time with the C library's allocator
/// (`upstream.rs` has the figures).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let matches = ProxyConfig::command().get_matches();
    exit_code("rstlab-proxy", ProxyConfig::read(&matches), |config| {
        if matches.subcommand().is_some() {
            return check_health(&config.listen);
        }
        let _log = init_log(config.log_options());
        block_on(serve(config))
    })
}

async fn serve(config: ProxyConfig) -> anyhow::Result<()> {
    let stop = stop_order_on_signals()?;
    let listener = listen("PROXY_LISTEN", &config.listen, None).await?;
    let (witness, takers) = config.witness_options().open(config.upstream_port())?;
    tracing::info!(
        address = %listener.local_addr()?,
        upstream = %config.upstream,
        writes = %config.writes,
        gap = ?config.gap(),
        witness = %witness.level(),
        not_more = witness.why_not_more(),
        workers = config.workers,
        upstream_keepalive = config.upstream_keepalive.then(|| tracing::field::display("on")),
        "listening"
    );
    let served = run(
        listener,
        config.into(),
        takers,
        witness.clone(),
        stop.clone(),
    )
    .await;
    witness.close().await;
    served?;
    ended_in_peace(&stop)
}
