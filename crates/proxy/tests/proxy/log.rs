//! Reads the log of a proxy that runs in the test's process.

use std::io;
use std::sync::Once;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::timeout;
use tracing::Subscriber;
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

use rstlab_tests::LIMIT;

/// Sets up the log of all tests before any of them logs: tracing decides once for each event whether a log wants it, and
/// would decide too early.
pub(crate) fn set_up() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        tracing::subscriber::set_global_default(log_to(io::sink)).expect("it is the first");
    });
}

fn log_to(writer: impl for<'a> MakeWriter<'a> + Send + Sync + 'static) -> impl Subscriber {
    tracing_subscriber::fmt()
        .with_max_level(LevelFilter::DEBUG)
        .with_ansi(false)
        .with_writer(writer)
        .finish()
}

/// The log of this test's thread, and of the workers that it starts.
pub(crate) struct Log {
    lines: UnboundedReceiver<String>,
    _guard: DefaultGuard,
}

impl Log {
    pub(crate) fn start() -> Self {
        set_up();
        let (sender, lines) = unbounded_channel();
        let log = log_to(move || Lines(sender.clone()));
        Self {
            lines,
            _guard: tracing::subscriber::set_default(log),
        }
    }

    /// The next line that holds `text`; those before it are dropped.
    pub(crate) async fn wait_for(&mut self, text: &str) -> String {
        let line = async {
            loop {
                let line = self.lines.recv().await.expect("the log goes on");
                if line.contains(text) {
                    return line;
                }
            }
        };
        timeout(LIMIT, line)
            .await
            .unwrap_or_else(|_| panic!("nothing with {text:?} was logged"))
    }
}

/// Each event is written in one piece.
struct Lines(UnboundedSender<String>);

impl io::Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // Fails when the test is over.
        let _ = self.0.send(String::from_utf8_lossy(line).into_owned());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
