use std::time::Duration;

use tokio::runtime::Runtime;

/// Time for tasks to let go of what they hold when the program ends: removing a trace instance is the longest.
const LAST: Duration = Duration::from_secs(2);

/// Runs a program to its end on tokio's threads.
///
/// The tasks that are left then are dropped, with what they hold. Threads are not waited for much longer: a name lookup
/// (`getaddrinfo(3)`) runs on one of its own and may take more time than anybody who stops a program will wait.
///
/// # Errors
/// The program's own, or no thread could be started.
pub fn block_on<T>(program: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = Runtime::new()?;
    let result = runtime.block_on(program);
    runtime.shutdown_timeout(LAST);
    result
}
