//! The program `rstlab-proxy`.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser as _;
use rstlab_cli::{
    EXIT_USAGE, WitnessOptions, block_on, check_health, init_log, listen, stop_on_signals,
};
use rstlab_proxy::{Args, Config, Stats, run};

/// Buffers come and go with each request and cross threads: the C library's allocator makes that dear
/// (`upstream.rs` has the figure).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args = Args::parse();
    let (config, witness, log) = match args.config() {
        Ok(settings) => settings,
        Err(bad) => {
            eprintln!("rstlab-proxy: {bad}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let result = if args.is_health_check() {
        check_health(&config.listen)
    } else {
        let _log = init_log(log);
        block_on(serve(config, &witness))
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rstlab-proxy: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(config: Config, witness: &WitnessOptions) -> anyhow::Result<()> {
    let stop = stop_on_signals()?;
    let listener = listen("PROXY_LISTEN", &config.listen).await?;
    let witness = witness.open(config.upstream_port())?;
    tracing::info!(
        address = %listener.local_addr()?,
        upstream = %config.upstream,
        writes = %config.writes,
        gap = ?config.gap(),
        witness = %witness.level(),
        not_more = witness.why_not_more(),
        upstream_keepalive = config.upstream_keepalive.then(|| tracing::field::display("on")),
        "listening"
    );
    let served = run(
        listener,
        config,
        Arc::new(Stats::default()),
        witness.clone(),
        stop,
    )
    .await;
    witness.close().await;
    served?;
    Ok(())
}
