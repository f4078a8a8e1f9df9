use tokio::runtime::Runtime;

/// Runs a program to its end on tokio's threads.
///
/// What is left then is not waited for: a name lookup (`getaddrinfo(3)`) runs on a thread of its own and may
/// take longer than anybody who stops a program will wait.
///
/// # Errors
/// The program's own, or no thread could be started.
pub fn block_on<T>(program: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = Runtime::new()?;
    let result = runtime.block_on(program);
    runtime.shutdown_background();
    result
}
