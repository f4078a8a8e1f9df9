use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

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
        let filter = settings.read("LOG", filter, allowed, |text| {
            EnvFilter::builder().parse(text).ok()
        });
        let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
        let format = settings.choice("LOG_FORMAT", format, &formats);
        Some(Self {
            filter: filter?,
            format: format?,
        })
    }
}

/// Starts the log of this process, on standard error.
pub fn init_log(options: LogOptions) {
    let log = tracing_subscriber::fmt()
        .with_env_filter(options.filter)
        .with_writer(std::io::stderr)
        // Told on the same standard error, and with a panic when nobody reads that any more: the task that
        // stops the program on a signal would end before it has done so.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    match options.format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
}
