//! `rstlab-upstream`: the application server of the laboratory.

use std::process::ExitCode;

use rstlab_cli::{
    block_on, check_health, ended_in_peace, exit_code, init_log, listen, stop_order_on_signals,
};
use rstlab_upstream::{UpstreamConfig, answer, run};

fn main() -> ExitCode {
    let matches = UpstreamConfig::command().get_matches();
    let parent = UpstreamConfig::parent(&matches);
    exit_code(
        "rstlab-upstream",
        UpstreamConfig::read(&matches),
        |config| {
            if matches.subcommand_name() == Some("health") {
                return check_health(&config.listen);
            }
            let _log = init_log(config.log_options());
            match parent {
                Some(parent) => block_on(async { Ok(answer(config, parent).await?) }),
                None => block_on(serve(config)),
            }
        },
    )
}

async fn serve(mut config: UpstreamConfig) -> anyhow::Result<()> {
    config.program = std::env::current_exe().ok();
    let stop = stop_order_on_signals()?;
    let listener = listen("UPSTREAM_LISTEN", &config.listen, config.sndbuf).await?;
    let (witness, takers) = config
        .witness_options()
        .open(listener.local_addr()?.port())?;
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
