//! `rstlab-upstream`: the application server of the laboratory.

use std::process::ExitCode;

use clap::Parser;
use rstlab_cli::{
    EXIT_USAGE, WitnessOptions, block_on, check_health, init_log, listen, stop_on_signals,
};
use rstlab_upstream::{Args, Command, Config, answer, run};

fn main() -> ExitCode {
    let args = Args::parse();
    let (config, witness, log) = match args.config() {
        Ok(settings) => settings,
        Err(bad) => {
            eprintln!("rstlab-upstream: {bad}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let done = match args.command {
        Some(Command::Health) => check_health(&config.listen),
        Some(Command::Answer { parent }) => {
            let _log = init_log(log);
            block_on(answer_once(config, parent))
        }
        None => {
            let _log = init_log(log);
            block_on(serve(config, &witness))
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rstlab-upstream: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(mut config: Config, witness: &WitnessOptions) -> anyhow::Result<()> {
    config.program = std::env::current_exe().ok();
    let stop = stop_on_signals()?;
    let listener = listen("UPSTREAM_LISTEN", &config.listen).await?;
    let witness = witness.open(listener.local_addr()?.port())?;
    let served = run(listener, config, witness.clone(), stop).await;
    witness.close().await;
    served?;
    Ok(())
}

async fn answer_once(config: Config, parent: i32) -> anyhow::Result<()> {
    answer(config, parent).await?;
    Ok(())
}
