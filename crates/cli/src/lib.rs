//! What the programs share at their front door: settings, the log, the listener, signals, health.

mod grouped;
mod health;
mod listen;
mod log;
mod runtime;
mod settings;
mod signals;
mod witness;

pub use grouped::grouped;
pub use health::check_health;
pub use listen::listen;
pub use log::{Log, LogFormat, LogOptions, init_log};
pub use runtime::block_on;
pub use settings::{BadSettings, Settings};
pub use signals::stop_on_signals;
pub use witness::{MOST_RECORDS, WitnessOptions, witness_level};

/// Exit code for bad settings and bad usage, clap's own.
pub const EXIT_USAGE: u8 = 2;
