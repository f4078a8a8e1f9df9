//! Reads the log of a proxy that runs in the test's process.

use std::cell::RefCell;
use std::io;
use std::sync::Once;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::timeout;
use tracing_subscriber::filter::LevelFilter;

use rstlab_tests::LIMIT;

thread_local! {
    /// Where this thread's lines go, if its test reads them.
    static LINES: RefCell<Option<UnboundedSender<String>>> = const { RefCell::new(None) };
}

/// Sets up the log of all tests before any of them logs: tracing decides once for each event whether a log wants it, and
/// would decide too early.
pub(crate) fn set_up() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        tracing_subscriber::fmt()
            .with_max_level(LevelFilter::DEBUG)
            .with_ansi(false)
            .with_writer(|| Lines)
            .init();
    });
}

/// The log of this test's thread, which runs all its tasks.
pub(crate) struct Log {
    lines: UnboundedReceiver<String>,
}

impl Log {
    pub(crate) fn start() -> Self {
        set_up();
        let (sender, lines) = unbounded_channel();
        LINES.set(Some(sender));
        Self { lines }
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
struct Lines;

impl io::Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        LINES.with_borrow(|sender| {
            // Fails when the test is over.
            let line = String::from_utf8_lossy(line).into_owned();
            sender.as_ref().map(|sender| sender.send(line))
        });
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
