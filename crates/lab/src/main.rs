//! The program `rstlab`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use rstlab_cli::{BadSettings, EXIT_USAGE, Log, LogOptions, Settings, init_log};
use rstlab_lab::{check, client, demo, load, matrix, server, show, trace, watch};

/// A laboratory for the occasional ECONNRESET between a reverse proxy and an app server.
// Every value is text: clap would stop at the first bad one, and we name them all.
#[derive(Debug, Parser)]
#[command(
    name = "rstlab",
    version,
    after_help = "Times have a unit: 500us, 10ms, 2s. Bytes may have one: 614400, 64KiB, 10GB.\n\
                  Exit codes: 0 all is well, 1 it is not (each command's help says more), 2 bad settings."
)]
struct Cli {
    /// Which log lines to write: error, warn, info, debug, or a tracing filter [default: warn; demo, trace: error]
    #[arg(long, env = "LOG", global = true, help_heading = "Log")]
    log: Option<String>,

    /// How to write them, on standard error: text or json.
    #[arg(
        long,
        env = "LOG_FORMAT",
        default_value = "text",
        global = true,
        help_heading = "Log"
    )]
    log_format: String,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Args),
    Trace(trace::Args),
    Server(server::Args),
    Client(client::Args),
    Load(load::Args),
    Check(check::Args),
    Matrix(matrix::Args),
    Watch(watch::Args),
    Show(show::Args),
}

impl Cli {
    /// Runs the command; `running` holds its log.
    fn run(&self, running: &mut Option<Log>) -> anyhow::Result<ExitCode> {
        match &self.command {
            // The proxy in process logs each reset as a warning: here they are the subject.
            Command::Demo(args) => {
                demo::execute(&self.checked(running, "error", |s| args.config(s))?)
            }
            Command::Trace(args) => {
                trace::execute(&self.checked(running, "error", |s| args.config(s))?)
            }
            Command::Server(args) => {
                server::execute(&self.checked(running, "warn", |s| args.config(s))?)
            }
            Command::Client(args) => {
                client::execute(&self.checked(running, "warn", |s| args.config(s))?)
            }
            Command::Load(args) => {
                load::execute(&self.checked(running, "warn", |s| args.config(s))?)
            }
            Command::Check(args) => {
                check::execute(&self.checked(running, "warn", |s| args.config(s))?)
            }
            Command::Matrix(args) => {
                matrix::execute(&self.checked(running, "error", |s| args.config(s))?)
            }
            Command::Watch(args) => {
                watch::execute(&self.checked(running, "warn", |s| args.config(s))?)
            }
            Command::Show(args) => {
                show::execute(&self.checked(running, "warn", |s| args.config(s))?)
            }
        }
    }

    /// Checks a command's settings together with the log's, and starts the log.
    fn checked<T>(
        &self,
        running: &mut Option<Log>,
        log: &str,
        config: impl FnOnce(&mut Settings) -> Option<T>,
    ) -> Result<T, BadSettings> {
        let mut settings = Settings::default();
        let config = config(&mut settings);
        let log = LogOptions::read(
            &mut settings,
            self.log.as_deref().unwrap_or(log),
            &self.log_format,
        );
        let (config, log) = settings.finish(config.zip(log))?;
        *running = Some(init_log(log));
        Ok(config)
    }
}

fn main() -> ExitCode {
    let mut log = None;
    match Cli::parse().run(&mut log) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("rstlab: {error:#}");
            if error.is::<BadSettings>() {
                ExitCode::from(EXIT_USAGE)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }
}
