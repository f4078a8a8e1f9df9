//! The log of a program: its settings, and its start.

use std::io::{IsTerminal, Write as _};

use tracing_appender::non_blocking::{ErrorCounter, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::Settings;
use crate::allowed::{self, Allowed};

/// How log lines are written to standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people and grep.
    Text,
    /// One JSON object a line.
    Json,
}

/// Which log lines are written, and how.
#[derive(Debug)]
pub struct LogOptions {
    /// A filter that [`log_filter`] allows.
    pub filter: String,
    /// How a line is written.
    pub format: LogFormat,
}

impl LogOptions {
    /// Reads the settings `LOG` and `LOG_FORMAT`.
    pub fn read(settings: &mut Settings, filter: &str, format: &str) -> Option<Self> {
        let filter = settings.check("LOG", filter, log_filter());
        let format = settings.check("LOG_FORMAT", format, log_format());
        Some(Self {
            filter: filter?,
            format: format?,
        })
    }
}

/// A filter of log lines.
pub fn log_filter() -> Allowed<impl Fn(&str) -> Option<String>> {
    let text = "a filter such as error, warn, info, debug, rstlab_proxy=debug";
    let parse = |text: &str| parse_filter(text).map(|_| text.to_owned());
    Allowed::new(text, parse).named("FILTER")
}

/// A format of log lines.
pub fn log_format() -> Allowed<impl Fn(&str) -> Option<LogFormat>> {
    allowed::choice(&[("text", LogFormat::Text), ("json", LogFormat::Json)]).named("FORMAT")
}

/// Takes a filter only if each word in it that stands alone is a level: tracing would take any other word for the
/// name of a module, and `LOG=inof` would silence everything.
fn parse_filter(text: &str) -> Option<EnvFilter> {
    // tracing counts bytes in a directive without the blanks around it, and cuts the one with them
    // (`Directive::parse`): it refuses such a directive, or panics.
    let directives: Vec<&str> = text.split(',').map(str::trim).collect();
    let sound = directives.iter().all(|directive| {
        let is_level = !directive.is_empty() && directive.parse::<LevelFilter>().is_ok();
        is_level || directive.contains(['=', '['])
    });
    let filter = EnvFilter::builder().parse(directives.join(","));
    filter.ok().filter(|_| sound)
}

/// The running log. Dropping it writes the lines that still wait, for a second at most, and says how many were dropped.
#[must_use = "dropping it ends the log"]
#[derive(Debug)]
pub struct Log {
    #[expect(dead_code, reason = "held for its drop")]
    guard: WorkerGuard,
    dropped: ErrorCounter,
}

impl Drop for Log {
    fn drop(&mut self) {
        let dropped = self.dropped.dropped_lines();
        if dropped > 0 {
            // Nobody may read it any more.
            let _ = writeln!(std::io::stderr(), "{dropped} lines of the log were dropped");
        }
    }
}

/// Starts the log of this process, on standard error.
///
/// A thread of its own writes the lines, because a terminal or a pipe that takes nothing must not stop the program.
/// While 128,000 lines wait, further ones are dropped.
pub fn init_log(options: LogOptions) -> Log {
    let LogOptions { filter, format } = options;
    let (writer, guard) = tracing_appender::non_blocking(std::io::stderr());
    let dropped = writer.error_counter();
    let log = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter))
        .with_writer(writer)
        // tracing prints its own errors on standard error too, and panics if nobody reads that any more. The panic
        // could end the task that stops the program on a signal.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
    Log { guard, dropped }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_level_is_no_filter() {
        for good in [
            "info",
            "WARN",
            "off",
            "warn,rstlab_proxy=debug",
            "rstlab_wire=trace",
            "info, rstlab_proxy=debug",
            "info, aé=debug",
        ] {
            assert!(parse_filter(good).is_some(), "{good}");
        }
        for bad in ["", "inof", "nonsense", "info,x", "rstlab_proxy=loud"] {
            assert!(parse_filter(bad).is_none(), "{bad}");
        }
    }
}
