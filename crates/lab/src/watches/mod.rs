//! Commands that explain resets: as they happen, or from records and captures.

mod captured;
pub mod show;
pub mod watch;
