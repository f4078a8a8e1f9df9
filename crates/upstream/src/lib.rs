//! The application server behind the proxy, whose mode says what it does with a body and how it closes.
//!
//! [`UpstreamConfig`] holds the [`Mode`] and its numbers, [`run`] serves. [`connection`] serves one connection and returns
//! how it ended, for tests and tools that look closely.

mod app;
mod child;
mod config;
mod ended;
mod exchange;
mod fill;
mod keep;
mod last;
mod log;
mod mode;
mod part;
mod serve;

pub use app::Answer;
pub use child::answer;
pub use config::{BodyPolicy, UpstreamConfig};
pub use exchange::{ConnectionEnd, connection};
pub use fill::Fill;
pub use mode::{BodyKind, CloseKind, Mode, ModeRow, ProcessKind, ResponseKind};
pub use serve::run;
