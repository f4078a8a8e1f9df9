//! What the programs share at their front door: settings, the log, the listener, signals, health.

pub mod allowed;
mod health;
mod listen;
mod live;
mod log;
mod runtime;
mod settings;
mod signals;
mod table;
mod witness;

// The macro `settings!` names the crate.
pub use clap;
pub use health::check_health;
pub use listen::listen;
pub use live::Live;
pub use log::{Log, LogFormat, LogOptions, init_log, log_filter, log_format};
pub use rstlab_witness::grouped;
pub use runtime::{block_on, exit_code};
pub use settings::{BadSettings, Settings};
pub use signals::{ended_in_peace, stop_on_signals, stop_order_on_signals};
pub use table::{Setting, list, markdown, with_settings};
pub use witness::{MAX_RECORDS, WitnessOptions, evidence, witness_level};

/// Exit code for bad settings and bad usage, clap's own.
pub const EXIT_USAGE: u8 = 2;
