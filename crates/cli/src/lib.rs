//! What the programs share at their front door: settings, the log, the listener, signals, health.

mod health;
mod listen;
mod log;
mod runtime;
mod settings;
mod signals;

pub use health::check_health;
pub use listen::listen;
pub use log::{Log, LogFormat, LogOptions, init_log};
pub use runtime::block_on;
pub use settings::{BadSettings, Settings};
pub use signals::stop_on_signals;

/// Exit code for bad settings and bad usage, clap's own.
pub const EXIT_USAGE: u8 = 2;
