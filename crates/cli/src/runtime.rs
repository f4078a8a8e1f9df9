//! Starts a program, and ends it.

use std::process::ExitCode;
use std::time::Duration;

use tokio::runtime::Runtime;

use crate::{BadSettings, EXIT_USAGE};

/// Limit of the time for the tasks that are left when the program ends: removing a trace instance takes longest.
const SHUTDOWN: Duration = Duration::from_secs(2);

/// Runs `program` with its settings, and prints its error to standard error.
pub fn exit_code<C>(
    name: &str,
    config: Result<C, BadSettings>,
    program: impl FnOnce(C) -> anyhow::Result<()>,
) -> ExitCode {
    let bad_settings = |bad| {
        eprintln!("{name}: {bad}");
        ExitCode::from(EXIT_USAGE)
    };
    config.map_or_else(bad_settings, |config| match program(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error:#}");
            ExitCode::FAILURE
        }
    })
}

/// Runs a program to its end on tokio's threads.
///
/// Tasks that are left then are dropped. A thread that still runs is not waited for: a name lookup (`getaddrinfo(3)`) has
/// a thread of its own, and may take longer than a user who stops the program will wait.
///
/// # Errors
/// The program's own, or no thread could be started.
pub fn block_on<T>(program: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = Runtime::new()?;
    let result = runtime.block_on(program);
    runtime.shutdown_timeout(SHUTDOWN);
    result
}
