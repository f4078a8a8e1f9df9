//! The program `rstlab`: one subcommand for each module of the library.

use std::process::ExitCode;

use anstream::ColorChoice;
use clap::{Parser, Subcommand};
use rstlab_cli::{BadSettings, EXIT_USAGE, Log, LogOptions, Settings, init_log};
use rstlab_lab::judges::{check, matrix};
use rstlab_lab::makes::{bench, client, demo, load, server, trace};
use rstlab_lab::watches::{show, watch};

/// A laboratory for the occasional ECONNRESET between a reverse proxy and an app server.
// Every value is text: clap would stop at the first bad value, and rstlab names all of them.
#[derive(Debug, Parser)]
#[command(
    name = "rstlab",
    version,
    after_help = "Times have a unit: 500us, 10ms, 2s. Bytes may have one: 614400, 64KiB, 10GB.\n\
                  Exit codes: 0 all is well, 1 something is not (each command's help says more), 2 bad settings."
)]
struct RstlabCli {
    /// Which log lines to write: error, warn, info, debug, or a tracing filter [default: warn; demo, trace, bench, matrix: error]
    #[arg(long, env = "LOG", global = true, help_heading = "Log")]
    log: Option<String>,

    /// Form of the log lines on standard error: text or json
    #[arg(
        long,
        env = "LOG_FORMAT",
        default_value = "text",
        global = true,
        help_heading = "Log"
    )]
    log_format: String,

    /// Color reports: auto (on a terminal, unless NO_COLOR is set), always or never
    #[arg(long, default_value = "auto", value_name = "WHEN", global = true)]
    color: String,

    #[command(subcommand)]
    command: LabCommand,
}

#[derive(Debug, Subcommand)]
enum LabCommand {
    Demo(demo::DemoArgs),
    Trace(trace::TraceArgs),
    Server(server::ServerArgs),
    Client(client::ClientArgs),
    Load(load::LoadArgs),
    Bench(bench::BenchArgs),
    Check(Box<check::CheckArgs>),
    Matrix(matrix::MatrixArgs),
    Watch(watch::WatchArgs),
    Show(show::ShowArgs),
}

impl RstlabCli {
    /// Runs the command; `running` holds its log.
    fn run(&self, running: &mut Option<Log>) -> anyhow::Result<ExitCode> {
        match &self.command {
            // The proxy in this process logs each reset as a warning; here resets are what the command shows.
            LabCommand::Demo(args) => {
                demo::execute(&self.checked(running, "error", |s| args.config(s))?)
            }
            LabCommand::Trace(args) => {
                trace::execute(&self.checked(running, "error", |s| args.config(s))?)
            }
            LabCommand::Server(args) => {
                server::execute(&self.checked(running, "warn", |s| args.config(s))?)
            }
            LabCommand::Client(args) => {
                client::execute(&self.checked(running, "warn", |s| args.config(s))?)
            }
            LabCommand::Load(args) => {
                load::execute(&self.checked(running, "warn", |s| args.config(s))?)
            }
            LabCommand::Bench(args) => {
                bench::execute(&self.checked(running, "error", |s| args.config(s))?)
            }
            LabCommand::Check(args) => {
                check::execute(&self.checked(running, "warn", |s| args.config(s))?)
            }
            LabCommand::Matrix(args) => {
                matrix::execute(&self.checked(running, "error", |s| args.config(s))?)
            }
            LabCommand::Watch(args) => {
                watch::execute(&self.checked(running, "warn", |s| args.config(s))?)
            }
            LabCommand::Show(args) => {
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
        let choices = [
            ("auto", ColorChoice::Auto),
            ("always", ColorChoice::Always),
            ("never", ColorChoice::Never),
        ];
        let color = settings.choice("--color", &self.color, &choices);
        let (config, (log, color)) = settings.finish(config.zip(log.zip(color)))?;
        color.write_global();
        *running = Some(init_log(log));
        Ok(config)
    }
}

fn main() -> ExitCode {
    let mut log = None;
    match RstlabCli::parse().run(&mut log) {
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
        RstlabCli::command().debug_assert();
    }
}
