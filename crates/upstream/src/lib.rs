//! The application server behind the proxy, with a choice of what it does with a body and how it closes.
//!
//! [`Mode`] is that choice, [`Config`] holds it with the numbers, [`run`] serves. [`connection`] serves one
//! connection and tells how it ended, for whoever wants to look closely. [`Args`] is the command line.

mod app;
mod args;
mod case;
mod child;
mod config;
mod fill;
mod keep;
mod last;
mod part;
mod report;
mod serve;

pub use app::{Answer, Kind};
pub use args::{Args, Command};
pub use child::answer;
pub use config::{BodyPolicy, Config, Mode};
pub use fill::Fill;
pub use serve::{Summary, connection, run};
