use std::io::IsTerminal;

use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::Settings;

/// How log lines are written to standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people and grep.
    Text,
    /// One JSON object a line.
    Json,
}

/// The settings `LOG` and `LOG_FORMAT`.
#[derive(Debug)]
pub struct LogOptions {
    filter: EnvFilter,
    format: LogFormat,
}

impl LogOptions {
    /// Reads both settings.
    pub fn read(settings: &mut Settings, filter: &str, format: &str) -> Option<Self> {
        let allowed = "a filter such as error, warn, info, debug, rstlab_proxy=debug";
        let filter = settings.read("LOG", filter, allowed, parse_filter);
        let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
        let format = settings.choice("LOG_FORMAT", format, &formats);
        Some(Self {
            filter: filter?,
            format: format?,
        })
    }
}

/// A filter in which every lone word is a level: tracing would take any other for the name of a module, and
/// `LOG=inof` would silence everything.
fn parse_filter(text: &str) -> Option<EnvFilter> {
    let sound = text.split(',').all(|directive| {
        let is_level = !directive.is_empty() && directive.parse::<LevelFilter>().is_ok();
        is_level || directive.contains(['=', '['])
    });
    EnvFilter::builder().parse(text).ok().filter(|_| sound)
}

/// The running log; what waits to be written is written when it is dropped, for a second at most.
#[must_use = "dropping it ends the log"]
#[derive(Debug)]
pub struct Log(#[expect(dead_code, reason = "held for its drop")] WorkerGuard);

/// Starts the log of this process, on standard error.
///
/// Lines are written by a thread of their own: a terminal or a pipe that takes nothing must not stop the
/// program. After 128,000 lines that wait, further ones are dropped.
pub fn init_log(options: LogOptions) -> Log {
    let (writer, guard) = tracing_appender::non_blocking(std::io::stderr());
    let log = tracing_subscriber::fmt()
        .with_env_filter(options.filter)
        .with_writer(writer)
        // Told on the same standard error, and with a panic when nobody reads that any more: the task that
        // stops the program on a signal would end before it has done so.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    match options.format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
    Log(guard)
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
        ] {
            assert!(parse_filter(good).is_some(), "{good}");
        }
        for bad in ["", "inof", "nonsense", "info,x", "rstlab_proxy=loud"] {
            assert!(parse_filter(bad).is_none(), "{bad}");
        }
    }
}
